import pytest
import torch

from nnunet_cmc.networks import MIA, MeanFusion
from nnunet_cmc.trainers import ablations
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer

LADDER = ["CMCTrainerBaseline", "CMCTrainerModalityEncoders", "CMCTrainerNoCAC"]
WITHOUT = ["CMCTrainerNoCSC", "CMCTrainerNoMIA", "CMCTrainerNoModalityDropout"]


@pytest.mark.parametrize("name", LADDER + WITHOUT)
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
