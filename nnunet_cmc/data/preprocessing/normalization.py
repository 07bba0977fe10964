"""Normalisation schemes of foundation encoders, for plans, and a description of how channels are normalised.

A scheme takes one channel ``(D, H, W)`` of one case. Statistics are of the voxels > 0, the body, or of all voxels if a
channel has fewer than two of these, or if they hardly differ, as in a mask.
"""

from collections.abc import Sequence

import numpy as np
from nnunetv2.preprocessing.normalization.default_normalization_schemes import CTNormalization, ImageNormalization
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import get_normalization_scheme

from nnunet_cmc.data.format.dataset_json import DatasetDescription

EPSILON = 1e-8  # smallest divisor
SPREAD = 1e-3  # smallest standard deviation of a body, as a share of the image's


def describe_normalization(description: DatasetDescription, schemes: Sequence[str] | None = None) -> str:
    """Describe how each modality is normalised, and warn of likely CT that is not normalised as CT.

    Args:
        schemes: for each channel; by default those that nnU-Net chooses by the channel's name.
    """
    if schemes is None:
        schemes = [get_normalization_scheme(name).__name__ for name in description.normalization_names]
    chosen = dict(zip(description.modalities, schemes, strict=True))
    described = (f"{m} {'as CT' if s.startswith('CT') else 'not as CT'} ({s})" for m, s in chosen.items())
    sentence = f"Normalisation: {', '.join(described)}."
    if doubtful := [m for m, scheme in chosen.items() if "ct" in m.casefold() and not scheme.startswith("CT")]:
        sentence += (
            f"\n{', '.join(doubtful)}: not called CT; where the values are HU, convert with --ct {' '.join(doubtful)}, "
            "or let channel_names in dataset.json say CT."
        )
    return sentence


def ct_modalities(description: DatasetDescription) -> list[str]:
    """List the modalities that nnU-Net normalises as CT, by the name of the channel."""
    schemes = map(get_normalization_scheme, description.normalization_names)
    return [m for m, s in zip(description.modalities, schemes, strict=True) if s.__name__.startswith("CT")]


def clip_range(scheme: str, intensities: dict) -> tuple[float, float] | None:
    """Return the lowest and highest value of a scheme's results, or None if these depend on the scan.

    Args:
        scheme: its name, as in the plans.
        intensities: ``foreground_intensity_properties_per_channel`` of the channel, as in the plans.
    """
    clipping = {kind.__name__: kind for kind in (CTNormalization, CTWindowNormalization, PercentileNormalization)}
    if scheme not in clipping:
        return None
    low, high = clipping[scheme](False, intensities).run(np.array([-1e9, 1e9], np.float32))
    return float(low), float(high)


def _body(image: np.ndarray) -> np.ndarray:
    positive = image[image > 0]
    differs = len(positive) > 1 and positive.std(dtype=np.float64) > SPREAD * image.std(dtype=np.float64)
    return positive if differs else image


class PositiveZScoreNormalization(ImageNormalization):
    """Standardise all voxels by mean and unbiased standard deviation of those > 0 (SAM-Med3D)."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        body = _body(image)
        # as Python's numbers, which leave the image in its own precision
        mean, std = float(body.mean(dtype=np.float64)), float(body.std(ddof=1, dtype=np.float64))
        return ((image - mean) / max(std, EPSILON)).astype(self.target_dtype, copy=False)


class CTPositiveZScoreNormalization(PositiveZScoreNormalization):
    """Clip CT to [-1000, 1000] HU, then standardise as :class:`PositiveZScoreNormalization` (SAM-Med3D)."""

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return super().run(image.clip(-1000, 1000), seg)


class CTWindowNormalization(ImageNormalization):
    """Clip CT to [-175, 250] HU and map it to [0, 1] (CLIP-Driven Universal Model)."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        return ((image.clip(-175, 250) + 175) / 425).astype(self.target_dtype)


class PercentileNormalization(ImageNormalization):
    """Clip to the 0.5th and 99.5th percentile of voxels > 0 and map to [0, 1]; for modalities other than CT."""

    leaves_pixels_outside_mask_at_zero_if_use_mask_for_norm_is_true = False

    def run(self, image: np.ndarray, seg: np.ndarray | None = None) -> np.ndarray:
        low, high = map(float, np.percentile(_body(image), (0.5, 99.5)))
        return ((image.clip(low, high) - low) / max(high - low, EPSILON)).astype(self.target_dtype, copy=False)
