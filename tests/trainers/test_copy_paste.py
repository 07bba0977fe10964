from dataclasses import replace

import pytest
import torch
from short_trainers import TAUGHT, short
from torch.nn.functional import max_pool3d

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.views import CopyPaste

PASTED = replace(TAUGHT, views=(*TAUGHT.views, CopyPaste()))


@pytest.fixture(params=["registered", "unpaired"])
def cubes(request):
    return request.getfixturevalue(request.param)


def batches_of(trainer, count: int):
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    return [next(loader) for _ in range(count)]


def test_a_cuboid_of_a_labelled_row_lies_in_the_strong_view_with_its_label(cubes):
    trainer = cubes.trainer(short(PASTED))
    places = set()
    for batch in batches_of(trainer, 8):
        n_labeled = len(batch["target"])
        present = batch["fusion"].diagonal(dim1=1, dim2=2)
        for row, (strong, pasted) in enumerate(zip(batch["strong"], batch["pasted"], strict=True)):
            has = present[n_labeled + row]
            there = (pasted[0] >= 0).nonzero()
            assert (there.amax(0) - there.amin(0) + 1).tolist() == [11, 11, 11], "two thirds of 16 voxels"
            assert len(there) == 11**3
            z, y, x = there.T
            donors = [
                donor
                for donor in range(n_labeled)
                if batch["data"][donor][has][:, z, y, x].equal(strong[has][:, z, y, x])
                and batch["target"][donor, 0, z, y, x].equal(pasted[0, z, y, x])
            ]
            assert donors, "it is a part of a labelled row that has all of this row's modalities"
            assert not strong[~has].any(), "what is absent stays absent"
            assert not strong.equal(batch["data"][n_labeled + row])
            places.add(tuple(there[0].tolist()))
    assert len(places) > 4


def test_what_is_pasted_has_no_place_in_the_body_and_teaches_cac_nothing(unpaired):
    """It is another patient's anatomy: at the host's positions, it would teach that organs lie elsewhere."""
    host, trainer = (unpaired.trainer(short(recipe)) for recipe in (TAUGHT, PASTED))
    compared = 0
    for plain, batch in zip(batches_of(host, 6), batches_of(trainer, 6), strict=True):
        n_labeled = len(batch["target"])
        assert batch["positions"][:n_labeled].equal(plain["positions"][:n_labeled])
        touched = max_pool3d((batch["pasted"] >= 0).float(), 4).bool().expand(-1, 3, -1, -1, -1)
        expected = plain["positions"][n_labeled:].masked_fill(touched, torch.nan)
        torch.testing.assert_close(batch["positions"][n_labeled:], expected, rtol=0, atol=0, equal_nan=True)

        output = trainer.network(torch.cat([batch["data"][:n_labeled], batch["strong"]]), batch["fusion"])
        cac = trainer.terms["cac"](output, Batch(**batch))
        (gradient,) = torch.autograd.grad(cac, output.logits)
        gradient = gradient[n_labeled:].abs().sum((1, 2))[:, None]
        assert not gradient[batch["pasted"] >= 0].any()
        compared += int(gradient.any())
    assert compared > 1


def test_true_labels_teach_where_there_are_some_and_the_teacher_elsewhere(registered):
    trainer = registered.trainer(short(PASTED))
    batch = Batch(**batches_of(trainer, 1)[0])
    trainer.teacher.module.forward = lambda data: torch.tensor([0.0, 9.0])[None, :, None, None, None].expand(
        len(data), -1, *data.shape[2:]
    )
    targets = trainer.teacher.teach(batch, num_classes=2).pseudo_targets
    there = batch.pasted >= 0
    assert targets[there].equal(batch.pasted[there])
    assert (targets[~there] == 1).all()
    assert 0 < there.float().mean() < 1
