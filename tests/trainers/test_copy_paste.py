import pytest
import torch
from torch.nn.functional import max_pool3d

from nnunet_cmc.data.pairs import POSITION_STRIDE
from nnunet_cmc.trainers.copy_paste import CMCTrainerCopyPaste
from nnunet_cmc.trainers.mean_teacher import CMCTrainerMeanTeacher
from nnunet_cmc.trainers.plus import CMCTrainerPlus


class Short(CMCTrainerPlus):
    seed, epochs, iterations = 0, 1, (2, 1)


@pytest.fixture(params=["registered", "unpaired"])
def cubes(request):
    return request.getfixturevalue(request.param)


def batches_of(trainer, count: int):
    trainer.initialize()
    loader, _ = trainer.get_dataloaders()
    return [next(loader) for _ in range(count)]


def test_a_cuboid_of_a_labelled_row_lies_in_the_strong_view_with_its_label(cubes):
    trainer = cubes.trainer(type("Seeded", (CMCTrainerCopyPaste,), {"seed": 0}))
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
    host, trainer = (
        unpaired.trainer(type("Seeded", (cls,), {"seed": 0})) for cls in (CMCTrainerMeanTeacher, CMCTrainerCopyPaste)
    )
    compared = 0
    for plain, batch in zip(batches_of(host, 6), batches_of(trainer, 6), strict=True):
        n_labeled = len(batch["target"])
        assert batch["positions"][:n_labeled].equal(plain["positions"][:n_labeled])
        touched = max_pool3d((batch["pasted"] >= 0).float(), POSITION_STRIDE).bool().expand(-1, 3, -1, -1, -1)
        expected = plain["positions"][n_labeled:].masked_fill(touched, torch.nan)
        torch.testing.assert_close(batch["positions"][n_labeled:], expected, rtol=0, atol=0, equal_nan=True)

        output = trainer.network(torch.cat([batch["data"][:n_labeled], batch["strong"]]), batch["fusion"])
        _, cac = trainer.consistency(output, batch["target"], batch["pairs"], batch["positions"])
        (gradient,) = torch.autograd.grad(cac, output.logits)
        gradient = gradient[n_labeled:].abs().sum((1, 2))[:, None]
        assert not gradient[batch["pasted"] >= 0].any()
        compared += int(gradient.any())
    assert compared > 1


def test_true_labels_teach_where_there_are_some_and_the_teacher_elsewhere(registered):
    trainer = registered.trainer(CMCTrainerCopyPaste)
    labels = torch.full((1, 1, 2, 2, 2), 2, dtype=torch.int16)
    pasted = torch.full_like(labels, -1)
    pasted[..., 0, 0, :] = torch.tensor([0, 1])
    taught = trainer.taught({"pasted": pasted}, labels)
    assert taught[0, 0].tolist() == [[[0, 1], [2, 2]], [[2, 2], [2, 2]]]


def test_everything_together_trains_and_its_weights_predict(cubes):
    trainer = cubes.trainer(Short)
    trainer.initialize()
    trainer.logger.local_logger.plot_progress_png = lambda folder: None
    trainer.run_training()
    again = Short.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 2, False)
    again.load_state_dict(trainer.network.state_dict())
    x = torch.randn(2, 2, 16, 16, 16)
    with torch.no_grad():
        assert again.eval()(x).equal(trainer.network.eval()(x))
