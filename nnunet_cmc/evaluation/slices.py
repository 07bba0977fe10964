"""Choice, orientation and intensity window of the slice of a volume that a picture shows."""

from collections.abc import Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from matplotlib import colormaps

from nnunet_cmc.evaluation.folder_evaluation import mask_of
from nnunet_cmc.evaluation.results import Label


class Plane(NamedTuple):
    """One slice of every volume ``(D, H, W)`` of a case; ``aspect`` is the height of a pixel over its width."""

    axis: int
    number: int
    aspect: float

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut the slice in radiological orientation: front or head up, the patient's left on the right."""
        slice_ = volume.take(self.number, self.axis)
        return slice_ if self.axis == 0 else slice_[::-1]


def best_plane(label_maps: Sequence[np.ndarray], classes: Mapping[str, Label], spacing: Sequence[float]) -> Plane:
    """Choose the slice in the plane of acquisition with the largest sum of the classes' areas relative to their maxima.

    The plane of acquisition lies across the largest spacing; of isotropic scans the axial one is taken. The first label
    map that has a class at all decides; without any it is the middle slice.
    """
    axis = max(range(3), key=lambda i: (round(spacing[i], 3), -i))
    rows, columns = (i for i in range(3) if i != axis)
    number = label_maps[0].shape[axis] // 2
    for labels in label_maps:
        areas = [mask_of(labels, label).sum(axis=(rows, columns)) for label in classes.values()]
        if np.any(areas):
            number = int(np.sum([area / max(area.max(), 1) for area in areas], axis=0).argmax())
            break
    return Plane(axis, number, spacing[rows] / spacing[columns])


def read_volume(file: str | PathLike) -> tuple[np.ndarray, tuple[float, ...]]:
    """Read a volume ``(D, H, W)`` and its spacing in mm; axes run to the head, the back and the patient's left."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def window(scan: np.ndarray) -> np.ndarray:
    """Scale a scan to [0, 1]: soft tissue (-160 to 240 HU) for CT, else its percentiles 1 to 99.5.

    A scan with values below -500, which air has in CT only, counts as CT.
    """
    low, high = (-160, 240) if scan.min() < -500 else np.percentile(scan, (1, 99.5))
    return np.clip((scan - low) / max(high - low, 1e-6), 0, 1)


def class_colors(classes: Mapping[str, Label]) -> dict[str, tuple]:
    """Return the RGBA colour of each class, the same in every picture."""
    palette = colormaps["tab10" if len(classes) <= 10 else "tab20"]
    return {name: palette(i % palette.N) for i, name in enumerate(classes)}
