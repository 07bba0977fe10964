"""Stacks of few thick slices: training on patches that nnU-Net augments slice by slice."""

from dataclasses import replace

import numpy as np
import pytest
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert3DTo2DTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from short_trainers import TAUGHT, short

from nnunet_cmc.data.loading.views import RandomizeContrast, perturbation
from nnunet_cmc.trainers.recipes import CONTRAST_TEACHER

CONTRASTED = replace(TAUGHT, views=(*TAUGHT.views, RandomizeContrast()))


@pytest.fixture(params=[10, 4])
def flat(request, cubes):
    """Patches of 10 slices, or of the fewest, which are never halved, of volumes of 20 x 24 x 22 voxels."""
    configuration = cubes.plans["configurations"]["3d_fullres"]
    architecture = configuration["architecture"]["arch_kwargs"]
    configuration["patch_size"] = architecture["patch_size"] = [request.param, 32, 32]
    architecture["encoder_kwargs"] |= {
        "kernel_sizes": [[1, 3, 3], [1, 3, 3], [3, 3, 3]],
        "strides": [[1, 1, 1], [1, 2, 2], [1, 2, 2]],
    }
    return cubes


def test_they_are_read_and_augmented_as_nnunet_does_it(flat):
    trainer = flat.trainer(short(TAUGHT))
    trainer.initialize()
    training, validation = (augmenter.data_loader for augmenter in trainer.get_dataloaders())
    _, dummy_2d, initial, _ = nnUNetTrainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size(trainer)
    assert dummy_2d
    assert training.patch_size.tolist() == initial.tolist()
    assert training.patch_size[0] == trainer.configuration_manager.patch_size[0]
    assert isinstance(training.transforms.transforms[0], Convert3DTo2DTransform)
    assert list(validation.patch_size) == trainer.configuration_manager.patch_size


@pytest.mark.parametrize(("patch_size", "kept"), [((10, 64, 64), (0,)), ((32, 32, 32), None)])
def test_strong_views_keep_the_resolution_between_slices_as_nnunet_does_it(patch_size, kept):
    steps = [getattr(step, "transform", step) for step in perturbation(patch_size).transforms]
    (lowered,) = [step for step in steps if isinstance(step, SimulateLowResolutionTransform)]
    assert lowered.ignore_axes == kept


@pytest.mark.parametrize("recipe", [CONTRASTED, CONTRAST_TEACHER])
def test_a_training_with_every_term_and_view(flat, recipe):
    trainer = flat.trainer(short(recipe, epochs=1))
    trainer.run_training()
    losses = trainer.logger.get_value("train_losses", None)
    assert len(losses) == 1
    assert np.isfinite(losses).all()
