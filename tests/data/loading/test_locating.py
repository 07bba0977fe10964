"""Places of a patch against those that the same augmentation makes of a volume of coordinates."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform, Convert3DTo2DTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn.functional import avg_pool3d

from nnunet_cmc.data.loading.locating import located, nowhere, position_stride

READ, PATCH, STRIDE = (24, 28, 20), (16, 12, 8), (4, 4, 4)
FLAT_READ, FLAT_PATCH, FLAT_STRIDE = (10, 36, 40), (10, 18, 28), (2, 3, 4)
MIRROR = MirrorTransform((0, 1, 2))
KINDS = {
    "crop": (0, False, {}),
    "crop anywhere": (4, True, {}),
    "rotation": (0, False, {"p_rotation": 1, "rotation": (-0.5, 0.5)}),
    "scaling": (0, False, {"p_scaling": 1, "scaling": (0.5, 0.9)}),
    "rotation and scaling": (4, True, {"p_rotation": 1, "p_scaling": 1, "rotation": (-0.5, 0.5)}),
    "elastic": (0, False, {"p_elastic_deform": 1}),
}


def in_3d(patch, *arguments, **augmentation) -> ComposeTransforms:
    return ComposeTransforms([SpatialTransform(patch, *arguments, **augmentation), MIRROR])


def slice_by_slice(patch, *arguments, **augmentation) -> ComposeTransforms:
    """As nnU-Net augments flat patches."""
    spatial = SpatialTransform(patch[1:], *arguments, **augmentation)
    return ComposeTransforms([Convert3DTo2DTransform(), spatial, Convert2DTo3DTransform(), MIRROR])


def coordinates(shape) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*(torch.arange(side).float() for side in shape), indexing="ij"))


def augmented(transforms, seed, **sample):
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transforms(**sample)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("chain", "read", "patch", "stride"),
    [(in_3d, READ, PATCH, STRIDE), (slice_by_slice, FLAT_READ, FLAT_PATCH, FLAT_STRIDE)],
)
def test_places_are_those_of_interpolated_coordinates(chain, read, patch, stride, kind, seed):
    border, anywhere, augmentation = KINDS[kind]
    plain = chain(patch, border, anywhere, **augmentation)
    volume = coordinates(read)
    inside = torch.ones(1, *read)  # less than 1 where zeros were padded
    expected = augmented(plain, seed, image=torch.cat([volume, inside]))["image"]
    found = augmented(located(plain), seed, image=volume, regression_target=nowhere(read))
    assert found["image"].equal(expected[:3]), "the image is what it was"
    places, blocks = found["regression_target"], avg_pool3d(expected, stride)
    assert places.shape == blocks[:3].shape
    whole = blocks[3] > 1 - 1e-6
    assert whole.sum() >= 8
    torch.testing.assert_close(places[:, whole], blocks[:3, whole], atol=2e-3, rtol=0)


@pytest.mark.parametrize(("patch", "scaling"), [(24, {}), (16, {"p_scaling": 1, "scaling": 1.5})])
def test_what_lies_outside_has_no_place(patch, scaling):
    """A patch larger than what was read, and one that is shrunk to see more than there is."""
    transform = located(ComposeTransforms([SpatialTransform((patch,) * 3, 0, False, **scaling)]))
    places = augmented(transform, 0, image=torch.ones(1, 16, 16, 16), regression_target=nowhere((16, 16, 16)))
    places = places["regression_target"]
    assert places[:, 0, 0, 0].isnan().all()
    assert places[:, 2, 2, 2].isfinite().all()
    assert places[0, 0].isnan().all(), "outside along D"
    assert places[1, 0, 2].isfinite().all(), "but not along H"


@pytest.mark.parametrize(("patch", "scaling"), [(24, {}), (16, {"p_scaling": 1, "scaling": 1.5})])
def test_what_lies_outside_of_a_slice_has_no_place(patch, scaling):
    transform = located(slice_by_slice((6, patch, patch), 0, False, **scaling))
    places = augmented(transform, 0, image=torch.ones(1, 6, 16, 16), regression_target=nowhere((6, 16, 16)))
    places = places["regression_target"]
    assert places[1:, :, 0, 0].isnan().all()
    assert places[:, :, 2, 2].isfinite().all()
    assert sorted(places[0, :, 0, 0].tolist()) == [1.0, 4.0], "every slice has its place along D"


@pytest.mark.parametrize("seed", range(6))
def test_flat_patches_are_what_nnunet_makes_of_them(seed):
    """Its whole augmentation, with and without us in it."""
    stock = nnUNetTrainer.get_training_transforms(FLAT_PATCH, (-np.pi, np.pi), None, (0, 1, 2), True)
    generator = torch.Generator().manual_seed(seed)
    image = torch.randn(2, *FLAT_READ, generator=generator)
    segmentation = torch.randint(-1, 3, (1, *FLAT_READ), generator=generator, dtype=torch.int16)
    expected = augmented(stock, seed, image=image.clone(), segmentation=segmentation.clone())
    found = augmented(
        located(stock), seed, image=image, segmentation=segmentation, regression_target=nowhere(FLAT_READ)
    )
    assert found["image"].equal(expected["image"])
    assert found["segmentation"].equal(expected["segmentation"])
    assert found["regression_target"].shape == (3, 5, 6, 7)


@pytest.mark.parametrize(
    ("side", "stride"), [(1, 1), (7, 1), (10, 2), (14, 2), (9, 3), (6, 3), (8, 4), (12, 4), (96, 4)]
)
def test_cells_of_positions_are_whole(side, stride):
    assert position_stride(side) == stride
