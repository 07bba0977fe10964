"""How intensities are normalised, in words, and the schemes of foundation encoders, which plans may name.

A scheme takes one channel ``(D, H, W)`` of one case. Voxels > 0 stand for the body; a channel that has fewer than two
of them is judged by all its voxels.
"""

from collections.abc import Sequence

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

from nnunet_cmc.data.dataset_json import DatasetDescription

SMALLEST = 1e-8  # no division by less


def describe_normalization(description: DatasetDescription, schemes: Sequence[str] | None = None) -> str:
    """Describe how each modality is normalised, and which may be CT and are not normalised so.

    Args:
        schemes: for each channel; those that nnU-Net chooses by the channel's name, if None.
    """
    if schemes is None:
        schemes = [get_normalization_scheme(name).__name__ for name in description.normalization_names]
    described, doubtful = [], []
    for name, scheme in zip(description.modalities, schemes, strict=True):
        as_ct = scheme.startswith("CT")
        described.append(f"{name} {'as CT' if as_ct else 'not as CT'} ({scheme})")
        if not as_ct and "ct" in name.casefold():
            doubtful.append(name)
    sentence = f"Normalisation: {', '.join(described)}."
    if doubtful:
        sentence += (
            f"\n{', '.join(doubtful)}: not called CT; where the values are HU, convert with --ct {' '.join(doubtful)}, "
            "or let channel_names in dataset.json say CT."
        )
    return sentence


def _body(image: np.ndarray) -> np.ndarray:
    positive = image[image > 0]
    return positive if len(positive) > 1 else image


class PositiveZScoreNormalization(ImageNormalization):
    """SAM-Med3D's: minus the mean, divided by the unbiased standard deviation, of voxels > 0; for every voxel."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        body = _body(image)
        mean, std = body.mean(dtype=np.float64), body.std(ddof=1, dtype=np.float64)
        return ((image - mean) / max(std, SMALLEST)).astype(self.target_dtype)


class CTPositiveZScoreNormalization(PositiveZScoreNormalization):
    """SAM-Med3D's of CT: the same after a clamp to [-1000, 1000] HU."""

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return super().run(image.clip(-1000, 1000), seg)


class CTWindowNormalization(ImageNormalization):
    """The Universal Model's: [-175, 250] HU to [0, 1], and no voxel outside."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return ((image.clip(-175, 250) + 175) / 425).astype(self.target_dtype)


class PercentileNormalization(ImageNormalization):
    """For other modalities where an encoder expects [0, 1]: 0.5th to 99.5th percentile of voxels > 0 to [0, 1]."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        low, high = np.percentile(_body(image), (0.5, 99.5))
        return ((image.clip(low, high) - low) / max(high - low, SMALLEST)).astype(self.target_dtype)
