"""The background of preprocessed scans, which changes of intensity leave as it is."""

from typing import Any

from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform, ImageOnlyTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from torch import Tensor

from nnunet_cmc.data.format.preprocessed import ALMOST_ZERO


def is_background(image: Tensor) -> Tensor:
    """Tell which voxels are 0 after preprocessing: outside of a scan, or of the mask that it is normalised in."""
    return image.abs() < 2 * ALMOST_ZERO  # twice: interpolation rounds


def is_intensity(transform: BasicTransform) -> bool:
    """Tell whether a step of nnU-Net's training augmentation changes intensities, and moves no voxel."""
    return isinstance(transform, RandomTransform) and isinstance(transform.transform, ImageOnlyTransform)


class KeepBackground:
    """Changes of intensity, but for the background.

    nnU-Net's MaskImageTransform does so by the label, which marks the background; unlabelled scans have none.

    Args:
        transforms: steps for which :func:`is_intensity`.
    """

    def __init__(self, transforms: ComposeTransforms):
        self.transforms = transforms

    def __call__(self, **sample: Any) -> dict:
        """Change ``sample["image"] (M, D, H, W)``."""
        background = is_background(sample["image"])
        kept = sample["image"][background]
        sample = self.transforms(**sample)
        sample["image"][background] = kept
        return sample


def with_background_kept(transforms: ComposeTransforms) -> ComposeTransforms:
    """Return nnU-Net's augmentation whose changes of intensity, which are one after the other, keep the background."""
    steps = transforms.transforms
    changes = [step for step in steps if is_intensity(step)]
    first = steps.index(changes[0])
    rest = [step for step in steps[first:] if not is_intensity(step)]
    return ComposeTransforms([*steps[:first], KeepBackground(ComposeTransforms(changes)), *rest])
