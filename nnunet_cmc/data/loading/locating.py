"""Where in a scan an augmented patch comes from: told by the augmentation, not interpolated as more channels."""

import math
from typing import Any

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.cropping import crop_tensor
from torch import Tensor
from torch.nn.functional import avg_pool3d


class LocatingTransform(BasicTransform):
    """A spatial transform that makes of a sample's ``regression_target`` the places that its patch comes from.

    It takes the shape of what was read, ``(3,)`` int64, and gives ``(3, D/S, H/S, W/S)`` float32 for a patch of
    ``(D, H, W)``: the mean place along D, H, W of each block of S^3 voxels, in voxels of what was read, whose first has
    its centre at 0; NaN where that lies outside. Later transforms may mirror it.

    Args:
        spatial: nnU-Net's, in three dimensions.
        stride: S.
    """

    def __init__(self, spatial: SpatialTransform, stride: int):
        super().__init__()
        self.spatial, self.stride = spatial, stride

    def get_parameters(self, **data_dict: Any) -> dict:
        """The spatial transform's."""
        return self.spatial.get_parameters(**data_dict)

    def _apply_to_image(self, img: Tensor, **params: Any) -> Tensor:
        return self.spatial._apply_to_image(img, **params)

    def _apply_to_segmentation(self, segmentation: Tensor, **params: Any) -> Tensor:
        return self.spatial._apply_to_segmentation(segmentation, **params)

    def _apply_to_regr_target(self, regression_target: Tensor, **params: Any) -> Tensor:
        size = regression_target.view(3, 1, 1, 1)
        if params["grid"] is None:
            places = self._of_crop(regression_target.tolist(), params["center_location_in_pixels"])
        else:
            blocks = avg_pool3d(params["grid"].permute(3, 0, 1, 2), self.stride)
            places = ((blocks.flip(0) + 1) * size - 1) / 2  # grid_sample counts from -1 to 1, and W first
        return places.where((places >= -0.5) & (places <= size - 0.5), torch.nan)

    def _of_crop(self, shape: list[int], center: list[float]) -> Tensor:
        along = []
        for side, middle, length in zip(shape, center, self.spatial.patch_size, strict=True):
            numbers = torch.arange(side).float()[None]
            along.append(crop_tensor(numbers, [math.floor(middle)], [length], pad_kwargs={"value": torch.nan}))
        blocks = [places[0].unfold(0, self.stride, self.stride).mean(1) for places in along]
        return torch.stack(torch.meshgrid(*blocks, indexing="ij"))


def located(transforms: ComposeTransforms, stride: int) -> ComposeTransforms:
    """nnU-Net's augmentation, which says where patches come from: see :class:`LocatingTransform`."""
    return ComposeTransforms(
        [LocatingTransform(one, stride) if isinstance(one, SpatialTransform) else one for one in transforms.transforms]
    )
