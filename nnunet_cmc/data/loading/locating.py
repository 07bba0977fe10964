"""Where in a scan an augmented patch comes from: told by the augmentation, not interpolated as more channels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.cropping import crop_tensor
from torch import Tensor
from torch.nn.functional import avg_pool2d, avg_pool3d

# Places vary slowly: a patch carries them at a fraction of its resolution, at most this many voxels to a cell.
MAX_STRIDE = 4


def position_stride(side: int) -> int:
    """Return how many voxels make a cell of positions along an axis of a patch with ``side`` voxels.

    It is the largest divisor of ``side`` up to :data:`MAX_STRIDE`: cells are whole also where the side, such as the ten
    slices of a cardiac stack, is no multiple of 4.
    """
    return max(stride for stride in range(1, MAX_STRIDE + 1) if side % stride == 0)


class LocatingTransform(BasicTransform):
    """A spatial transform that makes of a sample's ``regression_target`` the places that its patch comes from.

    It takes any tensor of the shape ``(3, D', H', W')`` of what was read (:func:`nowhere`), and gives ``(3, d, h, w)``
    float32 for a patch of ``(D, H, W)``: the mean place along D, H, W of each cell of :func:`position_stride` voxels
    along each axis, in voxels of what was read, whose first has its centre at 0; NaN where that lies outside. Later
    transforms may mirror it.

    A flat patch is augmented slice by slice, between nnU-Net's Convert3DTo2DTransform and Convert2DTo3DTransform: its
    slices are channels, ``(3 D, H', W')`` becomes ``(3 d, h, w)``, and cells span slices as they were read.

    Args:
        spatial: nnU-Net's, in three dimensions or, for flat patches, in two.
    """

    def __init__(self, spatial: SpatialTransform):
        super().__init__()
        self.spatial = spatial
        self.stride = [position_stride(side) for side in spatial.patch_size]

    def get_parameters(self, **data_dict: Any) -> dict:
        """Draw the spatial transform's."""
        return self.spatial.get_parameters(**data_dict)

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return self.spatial._apply_to_image(img, **params)

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        return self.spatial._apply_to_segmentation(segmentation, **params)

    def _apply_to_regr_target(self, regression_target: Tensor, **params: Any) -> Tensor:
        shape = regression_target.shape[1:]
        size = torch.tensor(shape).view(-1, *[1] * len(shape))
        if params["grid"] is None:
            places = self._of_crop(shape, params["center_location_in_pixels"])
        else:
            avg_pool = {2: avg_pool2d, 3: avg_pool3d}[len(shape)]
            blocks = avg_pool(params["grid"].movedim(-1, 0), self.stride)
            places = ((blocks.flip(0) + 1) * size - 1) / 2  # grid_sample counts from -1 to 1, and W first
        places = places.where((places >= -0.5) & (places <= size - 0.5), torch.nan)
        return places if len(shape) == 3 else _slice_by_slice(places, len(regression_target) // 3)

    def _of_crop(self, shape: torch.Size, center: list[float]) -> Tensor:
        along = []
        for side, middle, length in zip(shape, center, self.spatial.patch_size, strict=True):
            numbers = torch.arange(side).float()[None]
            along.append(crop_tensor(numbers, [math.floor(middle)], [length], pad_kwargs={"value": torch.nan})[0])
        blocks = [_cells(places, stride) for places, stride in zip(along, self.stride, strict=True)]
        return torch.stack(torch.meshgrid(*blocks, indexing="ij"))


def _slice_by_slice(places: Tensor, depth: int) -> Tensor:
    """Return where cells of ``depth`` slices lie, which all show ``places (2, h, w)`` of H and W: ``(3 d, h, w)``."""
    slices = _cells(torch.arange(depth).float(), position_stride(depth))
    along_d = slices.view(1, -1, 1, 1).expand(1, -1, *places.shape[1:])
    return torch.cat([along_d, places[:, None].expand(-1, len(slices), -1, -1)]).flatten(0, 1)


def _cells(numbers: Tensor, stride: int) -> Tensor:
    """Compute the mean of each ``stride`` numbers."""
    return numbers.unfold(0, stride, stride).mean(1)


def nowhere(shape: Sequence[int]) -> Tensor:
    """Return ``(3, *shape)`` float32 without memory of its own: what :class:`LocatingTransform` fills with places."""
    return torch.tensor(torch.nan).expand(3, *shape)


def located(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return nnU-Net's augmentation, which says where patches come from: see :class:`LocatingTransform`."""
    return ComposeTransforms(
        [LocatingTransform(one) if isinstance(one, SpatialTransform) else one for one in transforms.transforms]
    )
