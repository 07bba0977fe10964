"""Pictures of one case for a page: its slices side by side, as one JPEG of each scan and SVG of the labels over it."""

from collections.abc import Iterable, Mapping, Sequence
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
    class_colors,
    is_ct,
    masks_of,
    read_volume,
    scale,
)
from nnunet_cmc.utils.files import atomic_write, write_text

COUNT = 8  # slices of a case, unless its classes need more
# colours unlike those of any class or scan
ERRORS = {"false negative": "#00e5ff", "false positive": "#ffee00", "wrong class": "#ff30ff"}
_PLANES = ("axial", "coronal", "sagittal")  # across axes to the head, to the back, and to the patient's left
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


def save_case(folder: Path, files: CaseFiles, classes: Mapping[str, Label]) -> CasePictures:
    """Write the pictures of a case into ``folder``.

    The slices together show every class of the reference and of every prediction, and where each prediction has most
    errors.
    """
    folder.mkdir(parents=True, exist_ok=True)
    volumes = {modality: read_volume(file) for modality, file in files.images.items()}
    first, spacing = next(iter(volumes.values()))
    reference = None if files.reference is None else read_volume(files.reference)[0]
    predictions = {title: read_volume(file)[0] for title, file in files.predictions.items()}

    def masks() -> Iterable[np.ndarray]:
        for labels in (reference, *predictions.values()):
            if labels is not None:
                yield from masks_of(labels, classes)
        if reference is not None:
            for labels in predictions.values():
                yield np.any(list(errors(reference, labels, classes).values()), axis=0)

    planes, needed = choose_slices(masks(), first.shape, spacing, COUNT)
    axis = planes[0].axis
    ranks = sorted(range(len(planes)), key=lambda rank: planes[rank].number, reverse=axis == 0)
    planes = [planes[rank] for rank in ranks]
    slices = [
        Slice(rank, f"{_PLANES[axis]} slice {plane.number + 1} of {first.shape[axis]}")
        for rank, plane in zip(ranks, planes, strict=True)
    ]
    strip = _strip(first, planes)
    size = strip.shape[1], round(strip.shape[0] * planes[0].aspect)

    scans, ct = {}, []
    for number, (modality, (volume, _)) in enumerate(volumes.items()):
        strip = _strip(volume, planes)
        if is_ct(volume):
            ct.append(modality)
            gray = compress_hounsfield(strip)
        else:
            gray = scale(strip, *map(float, np.percentile(volume, (1, 99.5))))
        scans[modality] = f"{number}.jpg"
        _save_jpeg(folder / scans[modality], gray, size)

    colors = {name: to_hex(color) for name, color in class_colors(classes).items()}

    def draw(name: str, style: str, masks: Mapping[str, np.ndarray], colors: Mapping[str, str] = colors) -> str:
        return _save_svg(folder / name, size, [(mask, style.format(colors[key])) for key, mask in masks.items()])

    label = outline = ""
    if reference is not None:
        shown = dict(zip(classes, masks_of(_strip(reference, planes), classes), strict=True))
        label = draw("reference.svg", _OUTLINED, shown)
        if predictions:
            styles = (_HALO, _WHITE)
            outline = _save_svg(folder / "outline.svg", size, [(m, style) for style in styles for m in shown.values()])
    pairs = {}
    for number, (title, volume) in enumerate(predictions.items()):
        labels = _strip(volume, planes)
        found = dict(zip(classes, masks_of(labels, classes), strict=True))
        wrong = {} if reference is None else errors(_strip(reference, planes), labels, classes)
        pairs[title] = (
            draw(f"prediction_{number}.svg", _FILLED, found),
            draw(f"errors_{number}.svg", 'fill="{}"', wrong, ERRORS),
        )
    width = size[0] // len(planes)
    return CasePictures(slices, needed, (width, size[1]), scans, ct, label, outline, pairs)


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


def _strip(volume: np.ndarray, planes: Iterable[Plane]) -> np.ndarray:
    return np.hstack([plane.cut(volume) for plane in planes])


def _save_jpeg(file: Path, gray: np.ndarray, size: tuple[int, int]) -> None:
    image = Image.fromarray(np.rint(255 * gray).astype(np.uint8))
    with atomic_write(file) as temporary:
        (image if image.size == size else image.resize(size)).save(temporary, "JPEG", quality=90)


def _save_svg(file: Path, size: tuple[int, int], shapes: Sequence[tuple[np.ndarray, str]]) -> str:
    """Write masks of one shape with the attributes of their paths; return the name of the file."""
    rows, columns = shapes[0][0].shape if shapes else (1, 1)
    paths = [f'<path {style} d="{path}"/>' for mask, style in shapes if (path := outline_path(mask))]
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" '
        f'viewBox="0 0 {2 * columns} {2 * rows}" preserveAspectRatio="none" fill-rule="evenodd">'
    )
    style = "<style>path{vector-effect:non-scaling-stroke}</style>"
    write_text(file, "\n".join([head, style, *paths, "</svg>", ""]))
    return file.name
