"""Recipes that go beyond the paper in the network: fusion and supervision at every resolution."""

from dataclasses import replace

import pytest
import torch
from short_trainers import short

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks.changes import FuseSkips, SuperviseDeep
from nnunet_cmc.trainers.recipes import CONTRAST_TEACHER, PAPER

DEEP = replace(PAPER, network=(*PAPER.network, SuperviseDeep()))
DEEP_FUSED = replace(DEEP, network=(*DEEP.network, FuseSkips()))


def test_registered_scans_teach_skip_fusion(registered):
    trainer = registered.trainer(short(DEEP_FUSED))
    trainer.run_training()
    assert any(value.ne(0).any() for value in trainer.network.skip_fusion.parameters())


@pytest.mark.parametrize("recipe", [DEEP, CONTRAST_TEACHER])
def test_deep_supervision_halves_the_weight_with_the_resolution_and_leaves_the_coarsest_out(registered, recipe):
    architecture = registered.plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]
    architecture["encoder_kwargs"] = {"features_per_stage": [4, 8, 8, 8], "blocks_per_stage": [1, 1, 1, 1]}
    trainer = registered.trainer(short(recipe))
    trainer.initialize()
    batch = Batch(**next(trainer.get_dataloaders()[0]))
    output = trainer.network(batch.data, batch.fusion)
    assert [logits.shape[3:] for logits in output.deep] == [(8, 8, 8), (4, 4, 4)]
    nearest = batch.target[:, :, 1::2, 1::2, 1::2]  # "nearest-exact" takes the second of two voxels
    supervised = trainer.terms["supervised"]
    fine = supervised(output._replace(deep=()), batch)
    coarse = supervised(output._replace(logits=output.deep[0], deep=()), replace(batch, target=nearest))
    torch.testing.assert_close(supervised(output, batch), (fine + coarse / 2) / 1.5)


def test_scans_that_are_never_fused_teach_skip_fusion_nothing(unpaired):
    """On unpaired scans a training with it is one without it, to the bit."""
    weights = []
    for recipe in (DEEP, DEEP_FUSED):
        trainer = unpaired.trainer(short(recipe, epochs=1, iterations=3))
        trainer.run_training()
        weights.append(trainer.network.state_dict())
    plain, fused = weights
    projections = [fused.pop(name) for name in list(fused) if name.startswith("skip_fusion")]
    assert projections
    assert all(weight.eq(0).all() for weight in projections)
    assert fused.keys() == plain.keys()
    assert all(fused[name].equal(plain[name]) for name in plain)
