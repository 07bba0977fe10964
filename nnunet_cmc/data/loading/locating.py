"""Positions of an augmented patch in its scan, computed from the augmentation, not interpolated as channels."""

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

from nnunet_cmc.data.loading.label_resampling import resample_labels

# Positions vary slowly, so a patch has them at a lower resolution: at most this many voxels per cell and axis.
MAX_STRIDE = 4


def position_stride(side: int) -> int:
    """Return the number of voxels per cell of positions along an axis of a patch with ``side`` voxels.

    It is the largest divisor of ``side`` up to :data:`MAX_STRIDE`, so that cells are whole even if the side is not a
    multiple of 4, such as the ten slices of a cardiac stack.
    """
    return max(stride for stride in range(1, MAX_STRIDE + 1) if side % stride == 0)


class LocatingTransform(BasicTransform):
    """A spatial transform that replaces a sample's ``regression_target`` by the positions of its patch.

    The target is any tensor of the shape ``(3, D', H', W')`` of the array that was read (:func:`nowhere`). It becomes
    ``(3, d, h, w)`` float32 for a patch of ``(D, H, W)``: the mean position along D, H, W of each cell of
    :func:`position_stride` voxels along each axis, in voxels of that array, whose first has its centre at 0; NaN
    outside of it. Later transforms may mirror it.

    A flat patch is augmented slice by slice, between nnU-Net's Convert3DTo2DTransform and Convert2DTo3DTransform: its
    slices are channels, ``(3 D, H', W')`` becomes ``(3 d, h, w)``, and cells span slices as they were read.

    Labels are those of the spatial transform, in less time (:func:`resample_labels`).

    Args:
        spatial: nnU-Net's, in three dimensions or, for flat patches, in two.
    """

    def __init__(self, spatial: SpatialTransform):
        super().__init__()
        self.spatial = spatial
        self.stride = [position_stride(side) for side in spatial.patch_size]

    def get_parameters(self, **data_dict: Any) -> dict:
        """Draw the parameters of the spatial transform."""
        return self.spatial.get_parameters(**data_dict)

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return self.spatial._apply_to_image(img, **params)

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        return resample_labels(self.spatial, segmentation, params)

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
    """Return the positions ``(3 d, h, w)`` of cells of ``depth`` slices that share ``places (2, h, w)`` in plane."""
    slices = _cells(torch.arange(depth).float(), position_stride(depth))
    along_d = slices.view(1, -1, 1, 1).expand(1, -1, *places.shape[1:])
    return torch.cat([along_d, places[:, None].expand(-1, len(slices), -1, -1)]).flatten(0, 1)


def _cells(numbers: Tensor, stride: int) -> Tensor:
    """Compute the means of groups of ``stride`` numbers."""
    return numbers.unfold(0, stride, stride).mean(1)


def nowhere(shape: Sequence[int]) -> Tensor:
    """Return a placeholder ``(3, *shape)`` float32, without memory of its own, for :class:`LocatingTransform`."""
    return torch.tensor(torch.nan).expand(3, *shape)


def located(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return nnU-Net's augmentation with positions of the patches: see :class:`LocatingTransform`."""
    return ComposeTransforms(
        [LocatingTransform(one) if isinstance(one, SpatialTransform) else one for one in transforms.transforms]
    )
