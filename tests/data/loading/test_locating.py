"""Places of a patch against those that the same augmentation makes of a volume of coordinates."""

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from torch.nn.functional import avg_pool3d

from nnunet_cmc.data.loading.locating import LocatingTransform, located

READ, PATCH, STRIDE = (24, 28, 20), (16, 12, 8), 4
MIRROR = MirrorTransform((0, 1, 2))
SPATIAL = {
    "crop": SpatialTransform(PATCH, 0, False),
    "crop anywhere": SpatialTransform(PATCH, 4, True),
    "rotation": SpatialTransform(PATCH, 0, False, p_rotation=1, rotation=(-0.5, 0.5)),
    "scaling": SpatialTransform(PATCH, 0, False, p_scaling=1, scaling=(0.5, 0.9)),
    "rotation and scaling": SpatialTransform(PATCH, 4, True, p_rotation=1, p_scaling=1, rotation=(-0.5, 0.5)),
    "elastic": SpatialTransform(PATCH, 0, False, p_elastic_deform=1),
}


def coordinates(shape) -> torch.Tensor:
    return torch.stack(torch.meshgrid(*(torch.arange(side).float() for side in shape), indexing="ij"))


def augmented(transforms, seed, **sample):
    np.random.seed(seed)
    torch.manual_seed(seed)
    return transforms(**sample)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("kind", SPATIAL)
def test_places_are_those_of_interpolated_coordinates(kind, seed):
    plain = ComposeTransforms([SPATIAL[kind], MIRROR])
    volume = coordinates(READ)
    inside = torch.ones(1, *READ)  # less than 1 where zeros were padded
    expected = augmented(plain, seed, image=torch.cat([volume, inside]))["image"]
    found = augmented(located(plain, STRIDE), seed, image=volume, regression_target=torch.tensor(READ))
    assert found["image"].equal(expected[:3]), "the image is what it was"
    places, blocks = found["regression_target"], avg_pool3d(expected, STRIDE)
    assert places.shape == (3, 4, 3, 2)
    whole = blocks[3] > 1 - 1e-6
    assert whole.sum() >= 8
    torch.testing.assert_close(places[:, whole], blocks[:3, whole], atol=2e-3, rtol=0)


def test_what_lies_outside_has_no_place():
    """A patch larger than what was read, and one that is shrunk to see more than there is."""
    shrunk = SpatialTransform((16, 16, 16), 0, False, p_scaling=1, scaling=1.5)
    for spatial in (SpatialTransform((24, 24, 24), 0, False), shrunk):
        transform = LocatingTransform(spatial, STRIDE)
        places = augmented(transform, 0, image=torch.ones(1, 16, 16, 16), regression_target=torch.tensor((16, 16, 16)))
        places = places["regression_target"]
        assert places[:, 0, 0, 0].isnan().all()
        assert places[:, 2, 2, 2].isfinite().all()
        assert places[0, 0].isnan().all(), "outside along D"
        assert places[1, 0, 2].isfinite().all(), "but not along H"
