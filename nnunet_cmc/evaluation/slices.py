"""Choice, orientation and intensity window of the slices of a volume that a picture shows."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from os import PathLike
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from matplotlib import colormaps

from nnunet_cmc.evaluation.label_maps import mask_of
from nnunet_cmc.evaluation.results import Label

CT_WINDOWS = {"soft tissue": (-160, 240), "lung": (-1350, 150), "bone": (-500, 1300), "brain": (0, 80)}  # HU


class Plane(NamedTuple):
    """One slice of every volume ``(D, H, W)`` of a case; ``aspect`` is the height of a pixel over its width."""

    axis: int
    number: int
    aspect: float

    def cut(self, volume: np.ndarray) -> np.ndarray:
        """Cut the slice in radiological orientation: front or head up, the patient's left on the right."""
        slice_ = volume.take(self.number, self.axis)
        return slice_ if self.axis == 0 else slice_[::-1]


class Slices(NamedTuple):
    """Slices in the order in which they are worth showing; the first ``needed`` of them show every class."""

    planes: list[Plane]
    needed: int


def best_plane(label_maps: Sequence[np.ndarray], classes: Mapping[str, Label], spacing: Sequence[float]) -> Plane:
    """Choose the first slice of :func:`choose_slices` for the first label map that has a class, else the middle one."""
    shown = next((labels for labels in label_maps if any(m.any() for m in masks_of(labels, classes))), label_maps[0])
    return choose_slices(masks_of(shown, classes), shown.shape, spacing).planes[0]


def choose_slices(
    masks: Iterable[np.ndarray], shape: Sequence[int], spacing: Sequence[float], count: int = 1
) -> Slices:
    """Choose slices that together show every mask with at least half of its largest area.

    They lie in the plane with the finest pixels, which is that of acquisition: across the largest spacing, and of
    isotropic scans it is the axial one. Each next slice is the one with the largest sum of the missing masks' areas
    relative to their maxima. Further ones, up to ``count`` in all, lie as far as possible from those before, among
    slices that show a mask as far as there are enough; without any mask they begin in the middle.

    Args:
        masks: boolean ``(D, H, W)``; one that is empty is left out.
        shape, spacing: of the volumes; the spacing in mm.
        count: of slices, unless more are needed.
    """
    axis = max(range(3), key=lambda i: (round(spacing[i], 3), -i))
    rows, columns = (i for i in range(3) if i != axis)
    areas = np.array([mask.sum(axis=(rows, columns)) for mask in masks]).reshape(-1, shape[axis])
    areas = areas[areas.any(axis=1)]
    areas = areas / areas.max(axis=1, keepdims=True)
    areas[areas < 0.5] = 0
    numbers: list[int] = []
    missing = np.ones(len(areas), bool)
    while missing.any():
        numbers.append(int(areas[missing].sum(axis=0).argmax()))
        missing &= areas[:, numbers[-1]] == 0
    needed = max(len(numbers), 1)

    if len(areas):
        first, last = np.flatnonzero(areas.any(axis=0))[[0, -1]]
    else:  # the ends of a volume show little
        numbers, first, last = [shape[axis] // 2], shape[axis] // 10, shape[axis] - 1 - shape[axis] // 10
    lack = count - (last + 1 - first)
    if lack > 0:
        first = max(0, min(first - lack // 2, shape[axis] - count))
        last = min(first + count, shape[axis]) - 1
    candidates = np.arange(first, last + 1)
    while len(numbers) < min(count, len(candidates)):
        distances = np.abs(candidates[:, None] - numbers).min(axis=1)
        numbers.append(int(candidates[distances.argmax()]))
    return Slices([Plane(axis, number, spacing[rows] / spacing[columns]) for number in numbers], needed)


def masks_of(labels: np.ndarray, classes: Mapping[str, Label]) -> Iterator[np.ndarray]:
    """Yield the mask of each class in a label map."""
    return (mask_of(labels, label) for label in classes.values())


def read_volume(file: str | PathLike) -> tuple[np.ndarray, tuple[float, ...]]:
    """Read a volume ``(D, H, W)`` and its spacing in mm; axes run to the head, the back and the patient's left."""
    image = sitk.DICOMOrient(sitk.ReadImage(str(file)), "LPS")
    return sitk.GetArrayFromImage(image), image.GetSpacing()[::-1]


def is_ct(scan: np.ndarray, named: bool = False) -> bool:
    """Tell whether a scan is CT in HU: by values below -500, which air has in CT only, or because the dataset says so.

    Args:
        named: whether the dataset says so; values that span 100 or less have been scaled, and are no HU.
    """
    return bool(scan.min() < -500 or (named and float(scan.max()) - float(scan.min()) > 100))


def window(scan: np.ndarray) -> np.ndarray:
    """Scale a scan to [0, 1]: soft tissue for CT, else its percentiles 1 to 99.5."""
    return scale(scan, *(CT_WINDOWS["soft tissue"] if is_ct(scan) else percentiles(scan, 1, 99.5)))


def percentiles(values: np.ndarray, *ranks: float) -> tuple[float, ...]:
    """Return the values nearest to percentiles; between two, NumPy would wrap around where integers lie far apart."""
    return tuple(np.percentile(values, ranks, method="nearest").astype(float).tolist())


def scale(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Scale values to [0, 1]: ``low`` and what is below it to 0, ``high`` and what is above it to 1."""
    return np.clip((values - float(low)) / max(high - low, 1e-6), 0, 1)  # of integers, an int would wrap around


def colors_of(names: Collection[str]) -> dict[str, tuple]:
    """Return the RGBA colour of each class, or whatever has names; the same in every picture."""
    palette = colormaps["tab10" if len(names) <= 10 else "tab20"]
    return {name: palette(i % palette.N) for i, name in enumerate(names)}
