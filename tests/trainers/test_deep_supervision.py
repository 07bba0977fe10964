"""Trainers that go beyond the paper in the network: fusion and supervision at every resolution."""

import pytest
import torch

from nnunet_cmc.trainers.deep_supervision import CMCTrainerDeepSupervision, CMCTrainerSkipFusionDeepSupervision
from nnunet_cmc.trainers.skip_fusion import CMCTrainerFusedAndSplit


@pytest.mark.parametrize("cls", [CMCTrainerFusedAndSplit, CMCTrainerSkipFusionDeepSupervision])
def test_each_trains_and_its_weights_predict(registered, cls):
    trainer = registered.trainer(short(cls, iterations=2))
    trainer.initialize()
    trainer.logger.local_logger.plot_progress_png = lambda folder: None
    trainer.run_training()
    again = cls.build_network_architecture(trainer.plans_manager, trainer.configuration_manager, 2, 2, False)
    again.load_state_dict(trainer.network.state_dict())
    assert any(value.ne(0).any() for value in again.skip_fusion.parameters()), "registered scans teach skip fusion"
    x = torch.randn(2, 2, 16, 16, 16)
    with torch.no_grad():
        assert again.eval()(x).equal(trainer.network.eval()(x))


def short(cls, iterations: int):
    return type(cls.__name__, (cls,), {"seed": 0, "epochs": 1, "iterations": (iterations, 1)})


def test_deep_supervision_halves_the_weight_with_the_resolution(registered):
    trainer = registered.trainer(CMCTrainerDeepSupervision)
    trainer.initialize()
    batch = next(trainer.get_dataloaders()[0])
    output = trainer.network(batch["data"], batch["fusion"])
    assert [logits.shape[3:] for logits in output.deep] == [(8, 8, 8)]
    nearest = batch["target"][:, :, 1::2, 1::2, 1::2]  # "nearest-exact" takes the second of two voxels
    plain = super(CMCTrainerDeepSupervision, trainer)._supervised
    fine = plain(output, batch)
    coarse = plain(output._replace(logits=output.deep[0]), {**batch, "target": nearest})
    torch.testing.assert_close(trainer._supervised(output, batch), (fine + coarse / 2) / 1.5)


def test_scans_that_are_never_fused_teach_skip_fusion_nothing(unpaired):
    """On unpaired scans a training with it is one without it, to the bit."""
    weights = []
    for cls in (CMCTrainerDeepSupervision, CMCTrainerSkipFusionDeepSupervision):
        trainer = unpaired.trainer(short(cls, iterations=3))
        trainer.initialize()
        trainer.logger.local_logger.plot_progress_png = lambda folder: None
        trainer.run_training()
        weights.append(trainer.network.state_dict())
    plain, fused = weights
    projections = [fused.pop(name) for name in list(fused) if name.startswith("skip_fusion")]
    assert projections
    assert all(weight.eq(0).all() for weight in projections)
    assert fused.keys() == plain.keys()
    assert all(fused[name].equal(plain[name]) for name in plain)
