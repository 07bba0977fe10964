"""Labels of an augmented patch: copied where the scan shows one label, resampled by nnU-Net's transform elsewhere."""

from copy import copy
from typing import Any

import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from torch import Tensor
from torch.nn.functional import grid_sample

MIXED = -(2**15)  # in place of a label, where neighbours differ


def resample_labels(spatial: SpatialTransform, labels: Tensor, params: dict[str, Any]) -> Tensor:
    """Resample labels as nnU-Net's spatial transform does, with equal results in a fraction of the time.

    nnU-Net interpolates an indicator of each label at every voxel and takes the label with the highest. Linear
    interpolation between neighbours of one label can give no other, so only points between unlike neighbours, or
    outside of what was read, are left to it.

    Args:
        spatial: nnU-Net's transform; with anything but linear interpolation it resamples every point itself.
        labels: ``(C, *read)`` int16.
        params: what its ``get_parameters`` has drawn.

    Returns:
        ``(C, *patch)`` int16.
    """
    grid = params["grid"]  # (*patch, axes), from -1 to 1, the last axis first
    if grid is None or spatial.mode_seg != "bilinear" or spatial.align_corners or min(labels.shape[1:]) < 2:
        return spatial._apply_to_segmentation(labels, **params)
    sides = torch.tensor(labels.shape[:0:-1])
    known = grid_sample((_cells(labels).float() - MIXED)[None], (grid * (sides / (sides - 1)))[None], mode="nearest",
                        padding_mode="zeros", align_corners=False)[0] + MIXED  # fmt: skip
    resampled = known.to(labels.dtype)
    unknown = (known == MIXED).any(0)
    if unknown.any():
        # nnU-Net rounds otherwise where a grid leaves the image, which it tells by the extremes of the whole grid
        extremes = torch.stack(torch.aminmax(grid))[:, None].expand(2, grid.shape[-1])
        points = torch.cat([grid[unknown], extremes])
        part = copy(spatial)
        part.patch_size = (len(points), *[1] * (grid.shape[-1] - 1))
        part_params = {**params, "grid": points.view(*part.patch_size, -1)}
        resampled[:, unknown] = part._apply_to_segmentation(labels, **part_params).flatten(1)[:, :-2]
    return resampled


def _cells(labels: Tensor) -> Tensor:
    """Return the label that all corners of a cell between neighbouring voxels share, or :data:`MIXED`."""
    for axis in range(1, labels.ndim):
        cells = labels.shape[axis] - 1
        before, after = labels.narrow(axis, 0, cells), labels.narrow(axis, 1, cells)
        labels = torch.where(before == after, before, MIXED)
    return labels
