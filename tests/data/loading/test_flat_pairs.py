"""Pairs of flat patches, which nnU-Net augments slice by slice."""

import random

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from pair_loaders import BODY, REGISTERED, UNPAIRED, loader

from nnunet_cmc.data.loading.locating import located
from nnunet_cmc.data.loading.seeding import seeded
from nnunet_cmc.data.loading.views import perturbation

FLAT_SHAPE, FLAT_PATCH, FLAT_READ, FLAT_STRIDE = (13, 40, 36), (10, 36, 32), (10, 42, 42), (2, 4, 4)


def flat_loader(folder, present, stock, **kwargs):
    """A loader of flat patches, augmented by ``stock``, a chain of nnU-Net."""
    return loader(folder, present, patch=FLAT_READ, final=FLAT_PATCH, shape=FLAT_SHAPE, chain=located(stock), **kwargs)


class Remembers:
    """An augmentation that notes each sample and the random state that it was made from."""

    def __init__(self, transforms):
        self.transforms, self.calls = transforms, []

    def __call__(self, **sample):
        kept = {name: tensor.clone() for name, tensor in sample.items() if name != "regression_target"}
        self.calls.append((np.random.get_state(), torch.get_rng_state(), random.getstate(), kept))
        return self.transforms(**sample)


@pytest.mark.parametrize("present", [REGISTERED, UNPAIRED])
def test_rows_of_flat_patches_are_nnunets_own(tmp_path, present):
    """Labelled and unlabelled rows, registered or not, against nnU-Net's dummy 2-D augmentation of what was read."""
    stock = nnUNetTrainer.get_training_transforms(FLAT_PATCH, (-np.pi, np.pi), None, (0, 1, 2), True)
    source = flat_loader(tmp_path, present, stock, unlabeled=list(present)[1::2], seed=0)
    source.transforms = source.unlabeled_transforms = remembered = Remembers(source.transforms)
    for _ in range(4):
        remembered.calls.clear()
        batch = source.generate_train_batch()
        assert len(remembered.calls) == len(batch["data"])
        assert batch["data"].shape[1:] == (2, *FLAT_PATCH)
        for row, (numpy_state, torch_state, python_state, sample) in enumerate(remembered.calls):
            assert sample["image"].shape[1:] == FLAT_READ
            with seeded(0):  # puts the generators back
                np.random.set_state(numpy_state)
                torch.set_rng_state(torch_state)
                random.setstate(python_state)
                expected = stock(**sample)
            has = batch["fusion"][row].diagonal()
            assert batch["data"][row][has].equal(expected["image"])
            assert not batch["data"][row][~has].any()
            if row < len(batch["target"]):
                assert batch["target"][row].equal(expected["segmentation"])


def test_positions_in_flat_patches_are_those_of_the_body_box(tmp_path):
    """Turned and scaled in each slice and mirrored along all axes, voxels still count D + H + W."""
    spatial = SpatialTransform(FLAT_PATCH[1:], 0, False, p_rotation=1, p_scaling=1, scaling=(0.8, 1.2))
    stock = ComposeTransforms([Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform(), MirrorTransform((0, 1, 2))])
    source = flat_loader(tmp_path, UNPAIRED, stock, unlabeled=["ct2", "mr2"], seed=0)
    box, compared = torch.tensor(BODY), 0
    for _ in range(4):
        batch = source.generate_train_batch()
        assert batch["positions"].shape == (8, 3, 5, 9, 8)
        voxel = (batch["positions"] * (box[:, 1] - box[:, 0])[:, None, None, None]).sum(1) + box[:, 0].sum()
        for row, values in enumerate(batch["data"]):
            modality = int(batch["fusion"][row].diagonal().nonzero())
            covered = minimum_of_cells(values[modality] > modality + 0.99)
            value = torch.nn.functional.avg_pool3d(values[modality][None], FLAT_STRIDE)[0]
            expected = voxel[row] - 1.5 + 1.0 + modality + 0.05
            # the outermost voxels of the volume are mixed with the zeros around it
            near = (value - expected).abs()[covered]
            compared += len(near)
            assert near.median() < 0.05
            assert (near < 0.1).float().mean() > 0.7
    assert compared > 2000


def minimum_of_cells(mask):
    return -torch.nn.functional.max_pool3d(-mask[None].float(), FLAT_STRIDE)[0] == 1


@pytest.mark.parametrize("depth", range(4, 11))
def test_strong_views_of_few_slices(depth):
    np.random.seed(depth)
    torch.manual_seed(depth)
    perturb = perturbation((depth, 24, 20))
    image = torch.randn(2, depth, 24, 20)
    for _ in range(30):
        view = perturb(image=image.clone())["image"]
        assert view.isfinite().all()
        assert view.flatten(1).any(1).all()
