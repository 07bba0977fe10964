"""Find the body without labels; relative to its box, positions in scans of different patients are comparable."""

from collections.abc import Sequence

import numpy as np
import SimpleITK

CT_BODY_HU = -500.0  # between air or lung and soft tissue
# of the image; a smaller component is an artefact, such as metal, which raises Otsu's threshold
SMALLEST_FRACTION = 0.01


def body_box(image: np.ndarray, channel_names: Sequence[str]) -> np.ndarray:
    """Compute the bounding box of the body, over the channels that are not all zero.

    In each, the body is the largest connected component above -500 HU (a channel named CT), or above Otsu's threshold
    of the square roots of its intensities from their lowest (0.5th percentile).

    Args:
        image: ``(M, D, H, W)`` raw intensities.
        channel_names: names of the M modalities.

    Returns:
        ``(3, 2)`` float64, half-open ``[lo, hi)`` in voxels; the whole image where no body is found.
    """
    boxes = [
        box
        for channel, name in zip(image, channel_names, strict=True)
        if channel.any() and (box := _largest_component(_above_air(channel, name))) is not None
    ]
    if not boxes:
        return np.array([(0, side) for side in image.shape[1:]], dtype=float)
    return np.stack([np.min(boxes, axis=0)[:, 0], np.max(boxes, axis=0)[:, 1]], axis=1)


def _above_air(channel: np.ndarray, name: str) -> SimpleITK.Image:
    if name.casefold() == "ct":  # as nnU-Net recognises it
        return SimpleITK.GetImageFromArray((channel > CT_BODY_HU).astype(np.uint8))
    intensities = channel.astype(np.float32, copy=False)
    # of the intensities of PET themselves, the threshold lies between hot organs, such as the brain, and the body
    roots = np.sqrt(np.maximum(intensities - np.percentile(intensities, 0.5), 0))  # a minimum may be one bad voxel
    return SimpleITK.OtsuThreshold(SimpleITK.GetImageFromArray(roots), 0, 1)


def _largest_component(mask: SimpleITK.Image) -> np.ndarray | None:
    """Compute the bounding box ``(3, 2)`` of the largest connected component; None if it is negligible."""
    parts = SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(mask), sortByObjectSize=True)
    shape = SimpleITK.LabelShapeStatisticsImageFilter()
    shape.Execute(parts == 1)
    if not shape.HasLabel(1):
        return None
    x, y, z, width, height, depth = shape.GetBoundingBox(1)
    if width * height * depth < SMALLEST_FRACTION * mask.GetNumberOfPixels():
        return None
    return np.array([(z, z + depth), (y, y + height), (x, x + width)], dtype=float)
