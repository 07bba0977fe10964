import pytest
import torch

from nnunet_cmc.trainers.copy_paste import CMCTrainerCopyPaste
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
