"""Pictures of one case for a page: its slices side by side, as one JPEG of each scan and SVG of the labels over it."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from contourpy import contour_generator
from matplotlib.colors import to_hex
from PIL import Image

from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import (
    CT_WINDOWS,
    Plane,
    choose_slices,
    colors_of,
    is_ct,
    masks_of,
    percentiles,
    read_volume,
    scale,
)
from nnunet_cmc.utils.files import atomic_write, write_text

COUNT = 20  # slices of a case, unless its classes need more
JPEG_SIDE = 65_500  # pixels that a JPEG has at most along a side
# colours unlike those of any class or scan
ERRORS = {"false negative": "#00e5ff", "false positive": "#ffee00", "wrong class": "#ff30ff"}
_PLANES = ("axial", "coronal", "sagittal")  # across axes to the head, to the back, and to the patient's left
_SOLID = 'fill="{}"'
_FILLED = 'fill="{}" fill-opacity="0.5"'
_OUTLINED = 'fill="{0}" fill-opacity="0.2" stroke="{0}" stroke-width="1.5"'
_WHITE = 'fill="none" stroke="white" stroke-width="1.5"'
_HALO = 'fill="none" stroke="black" stroke-width="3.5"'  # keeps white outlines visible on bright tissue


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case, all on one grid."""

    case: str
    images: Mapping[str, str | PathLike]  # by modality, one or more
    reference: str | PathLike | None
    predictions: Mapping[str, str | PathLike]  # by title, such as "both", "CT only"


@dataclass(frozen=True)
class Slice:
    """One thumbnail; ``rank`` is its place among those of the case, 0 for what is shown first."""

    rank: int
    caption: str


@dataclass(frozen=True)
class CasePictures:
    """What was written of a case, each file with all slices side by side.

    Attributes:
        slices: from the head, the front or the right.
        needed: how many of them, by rank, show every class.
        size: width and height of a slice in the pictures, in pixels.
        scans: file of each modality; those of CT are in the grey values of :func:`compress_hounsfield`.
        ct: the modalities that are CT.
        reference: file of the coloured label; empty without one.
        outline: file of its white outlines; empty without predictions.
        predictions: by title, the file of the coloured classes, and that of where they are wrong.
    """

    slices: list[Slice]
    needed: int
    size: tuple[int, int]
    scans: dict[str, str]
    ct: list[str]
    reference: str
    outline: str
    predictions: dict[str, tuple[str, str]]


def save_case(folder: Path, files: CaseFiles, classes: Mapping[str, Label], ct: Collection[str] = ()) -> CasePictures:
    """Write the pictures of a case into ``folder``.

    The slices together show every class of the reference and of every prediction, and where each prediction has most
    errors. Modalities of the names ``ct`` are CT by the dataset.
    """
    folder.mkdir(parents=True, exist_ok=True)
    volumes = {modality: read_volume(file) for modality, file in files.images.items()}
    reference = None if files.reference is None else read_volume(files.reference)[0]
    predictions = {title: read_volume(file)[0] for title, file in files.predictions.items()}
    first, spacing = next(iter(volumes.values()))
    planes, needed = choose_slices(_shown(reference, predictions, classes), first.shape, spacing, COUNT)
    axis = planes[0].axis
    ranks = sorted(range(len(planes)), key=lambda rank: planes[rank].number, reverse=axis == 0)
    strip = _Strip(folder, [planes[rank] for rank in ranks], first)

    ct = [modality for modality, (volume, _) in volumes.items() if is_ct(volume, modality in ct)]
    scans = {m: strip.save_scan(f"{i}.jpg", volumes[m][0], m in ct) for i, m in enumerate(volumes)}
    colors = {name: to_hex(color) for name, color in colors_of(classes).items()}
    label = outline = ""
    if reference is not None:
        shown = strip.masks(reference, classes)
        label = strip.save_masks("reference.svg", shown, [_OUTLINED], colors)
        if predictions:
            outline = strip.save_masks("outline.svg", shown, [_HALO, _WHITE], colors)
    pairs = {}
    for i, (title, labels) in enumerate(predictions.items()):
        found = strip.masks(labels, classes)
        wrong = {} if reference is None else errors(strip.cut(reference), strip.cut(labels), classes)
        pairs[title] = (
            strip.save_masks(f"prediction_{i}.svg", found, [_FILLED], colors),
            strip.save_masks(f"errors_{i}.svg", wrong, [_SOLID], ERRORS),
        )
    captions = [f"{_PLANES[axis]} slice {planes[rank].number + 1} of {first.shape[axis]}" for rank in ranks]
    return CasePictures(
        slices=[Slice(rank, caption) for rank, caption in zip(ranks, captions, strict=True)],
        needed=needed,
        size=(strip.size[0] // len(planes), strip.size[1]),
        scans=scans,
        ct=ct,
        reference=label,
        outline=outline,
        predictions=pairs,
    )


def _shown(
    reference: np.ndarray | None, predictions: Mapping[str, np.ndarray], classes: Mapping[str, Label]
) -> Iterator[np.ndarray]:
    """Yield the masks that the slices must show."""
    for labels in predictions.values():
        yield from masks_of(labels, classes)
    if reference is not None:
        yield from masks_of(reference, classes)
        for labels in predictions.values():
            yield np.any(list(errors(reference, labels, classes).values()), axis=0)


class _Strip:
    """Slices side by side, and the folder for their pictures; ``size`` is the width and height of those in pixels."""

    def __init__(self, folder: Path, planes: Sequence[Plane], volume: np.ndarray):
        self.folder, self.planes = folder, planes
        rows, columns = self.cut(volume).shape
        height = rows * planes[0].aspect  # of square pixels
        shrunk = min(1.0, JPEG_SIDE / max(columns, height))
        self.size = max(1, round(columns * shrunk)), max(1, round(height * shrunk))

    def cut(self, volume: np.ndarray) -> np.ndarray:
        return np.hstack([plane.cut(volume) for plane in self.planes])

    def masks(self, labels: np.ndarray, classes: Mapping[str, Label]) -> dict[str, np.ndarray]:
        return dict(zip(classes, masks_of(self.cut(labels), classes), strict=True))

    def save_scan(self, name: str, volume: np.ndarray, ct: bool) -> str:
        values = self.cut(volume)
        grey = compress_hounsfield(values) if ct else scale(values, *percentiles(volume, 1, 99.5))
        image = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
        with atomic_write(self.folder / name) as temporary:
            (image if image.size == self.size else image.resize(self.size)).save(temporary, "JPEG", quality=90)
        return name

    def save_masks(
        self, name: str, masks: Mapping[str, np.ndarray], styles: Sequence[str], colors: Mapping[str, str]
    ) -> str:
        """Write masks as paths of SVG, all in the first style, and above them all in the next one."""
        rows, columns = next(iter(masks.values())).shape if masks else (1, 1)
        paths = {key: outline_path(mask) for key, mask in masks.items()}
        shapes = [
            f'<path {style.format(colors[key])} d="{path}"/>' for style in styles for key, path in paths.items() if path
        ]
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{self.size[0]}" height="{self.size[1]}" '
            f'viewBox="0 0 {2 * columns} {2 * rows}" preserveAspectRatio="none" fill-rule="evenodd">'
        )
        thin = "<style>path{vector-effect:non-scaling-stroke}</style>"  # lines are as wide in a large picture
        write_text(self.folder / name, "\n".join([head, thin, *shapes, "</svg>", ""]))
        return name


def errors(reference: np.ndarray, prediction: np.ndarray, classes: Mapping[str, Label]) -> dict[str, np.ndarray]:
    """Return masks of the wrong voxels by kind; none is wrong where the reference is neither a class nor 0."""
    values = np.hstack(list(classes.values()))
    there, found = np.isin(reference, values), np.isin(prediction, values)
    kinds = (there & ~found, found & (reference == 0), there & found & (reference != prediction))
    return dict(zip(ERRORS, kinds, strict=True))


def compress_hounsfield(values: np.ndarray) -> np.ndarray:
    """Map HU to [0, 1] by the mean of all windows of ``CT_WINDOWS``, so that each of them has many of 256 greys."""
    return np.mean([scale(values, *window) for window in CT_WINDOWS.values()], axis=0)


def window_table(low: float, high: float) -> np.ndarray:
    """Compute what each of the 256 greys of :func:`compress_hounsfield` becomes in a window, from 0 to 1."""
    ends = [end for window in CT_WINDOWS.values() for end in window]
    values = np.arange(min(ends), max(ends) + 1)
    return scale(np.interp(np.linspace(0, 1, 256), compress_hounsfield(values), values), low, high)


def outline_path(mask: np.ndarray) -> str:
    """Return the path of SVG around a mask ``(rows, columns)``, in half pixels; empty for an empty mask."""
    # samples are centres of pixels; the frame of zeros closes what touches the border
    lines: Any = contour_generator(z=np.pad(mask, 1).astype(np.float32)).lines(0.5)
    paths = []
    for line in lines:
        points = np.rint(2 * line).astype(int) - 1
        steps = np.diff(points, axis=0)
        corner = np.any(steps[1:] != steps[:-1], axis=1)
        corners = points[:-1][np.r_[True, corner]]
        moves = " ".join(f"{x} {y}" for x, y in np.diff(corners, axis=0))
        paths.append(f"M{corners[0, 0]} {corners[0, 1]}l{moves}z")
    return "".join(paths)
