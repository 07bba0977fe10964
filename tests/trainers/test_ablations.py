import pytest
import torch

from nnunet_cmc.networks import MIA, MeanFusion
from nnunet_cmc.trainers import ablations
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer

LADDER = ["CMCTrainerBaseline", "CMCTrainerModalityEncoders", "CMCTrainerNoCAC"]
WITHOUT = ["CMCTrainerNoCSC", "CMCTrainerNoMIA", "CMCTrainerNoModalityDropout"]
OTHERWISE = ["CMCTrainerCorrectedSchedules", "CMCTrainerOneSided", "CMCTrainerOnlyModality0", "CMCTrainerOnlyModality1"]


@pytest.mark.parametrize("name", LADDER + WITHOUT + OTHERWISE)
def test_each_trains_and_its_weights_predict(registered, name):
    cls = getattr(ablations, name)
    short = type(name, (cls,), {"seed": 0, "epochs": 1, "iterations": (2, 1)})
    trainer = registered.trainer(short)
    trainer.initialize()
    trainer.logger.local_logger.plot_progress_png = lambda folder: None
    trainer.run_training()
    again = cls.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 2, False)
    again.load_state_dict(trainer.network.state_dict())
    x = torch.randn(2, 2, 16, 16, 16)
    with torch.no_grad():
        assert again.eval()(x).equal(trainer.network.eval()(x))


@pytest.mark.parametrize(
    ("name", "csc", "cac", "mia", "encoders", "dropout"),
    [
        ("CMCTrainerBaseline", False, False, False, 1, 0.5),
        ("CMCTrainerModalityEncoders", False, False, False, 2, 0.5),
        ("CMCTrainerNoCAC", True, False, True, 2, 0.5),
        ("CMCTrainerNoCSC", False, True, True, 2, 0.5),
        ("CMCTrainerNoMIA", True, True, False, 2, 0.5),
        ("CMCTrainerNoModalityDropout", True, True, True, 2, 0.0),
        ("CMCTrainer", True, True, True, 2, 0.5),
    ],
)
def test_each_lacks_what_its_name_says_and_nothing_else(registered, name, csc, cac, mia, encoders, dropout):
    trainer = registered.trainer(getattr(ablations, name, CMCTrainer))
    trainer.initialize()
    weights = trainer.consistency_weights()
    assert (weights["alpha"] > 0, weights["beta"] > 0) == (csc, cac)
    assert isinstance(trainer.network.mia, MIA if mia else MeanFusion)
    assert len({id(encoder) for encoder in trainer.network.encoders}) == encoders
    assert trainer.modality_dropout == dropout


def test_mean_fusion_is_the_mean_over_the_present():
    features = torch.randn(2, 3, 4, 2, 2, 2)
    present = torch.tensor([[True, False, True], [False, True, False]])
    expected = torch.stack([features[0, [0, 2]].mean(0), features[1, 1]])
    torch.testing.assert_close(MeanFusion()(features, present), expected)


def test_corrected_schedules_rise_together(registered):
    trainer = registered.trainer(ablations.CMCTrainerCorrectedSchedules)
    trainer.num_epochs = 10
    seen = []
    for trainer.current_epoch in (0, 5, 10):
        weights = trainer.consistency_weights()
        assert weights["alpha"] == weights["beta"]
        seen.append(weights["beta"])
    assert 0 < seen[0] < seen[1] < seen[2] == pytest.approx(0.1)


def test_one_sided_consistency_learns_from_all_modalities_together(registered, monkeypatch):
    """The constant side of CAC is the network's own prediction from both."""
    trainer = registered.trainer(ablations.CMCTrainerOneSided)
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    hidden = batch["data"][len(batch["target"]) :]
    with torch.no_grad():
        expected = trainer.network(hidden).softmax(1)
    given = []
    loss = trainer.consistency.cac["paired"]
    compare = loss.forward
    monkeypatch.setattr(
        loss, "forward", lambda p, present, joint: given.append(joint) or compare(p, present, joint=joint)
    )
    trainer.update(batch)
    torch.testing.assert_close(given[0], expected)
    assert not given[0].requires_grad
    assert loss.one_sided
    assert trainer.consistency.cac["unpaired"].one_sided


@pytest.mark.parametrize("only", [0, 1])
def test_one_modality_alone(cubes, only):
    cls = getattr(ablations, f"CMCTrainerOnlyModality{only}")
    trainer = cubes.trainer(type(cls.__name__, (cls,), {"seed": 0}))
    trainer.initialize()
    loaders = trainer.get_dataloaders()
    present = cubes.dataset_json["cmc"]["present_channels"]
    for _ in range(3):
        batch = next(loaders[0])
        assert all(only in present[case] for case in batch["keys"])
        assert not batch["data"][:, 1 - only].any()
        assert batch["data"][:, only].flatten(1).any(1).all()
    assert all(only in present[case] for case in trainer.do_split()[1]), "it validates on cases that it can predict"
    x = torch.randn(1, 2, 16, 16, 16)
    other = x.clone()
    other[:, 1 - only] = torch.randn(1, 16, 16, 16)
    with torch.no_grad():
        assert trainer.network(x).equal(trainer.network(other))
