"""Pictures of predictions over the scans they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from nnunet_cmc.data.files import save_figure
from nnunet_cmc.evaluation.folder_evaluation import mask_of
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, class_colors, read_volume, window

_PANEL = 2.4  # inches, the width of a panel
_LEGEND_COLUMNS = 5
_OUTLINE_WIDTH = 0.8
_STROKE = withStroke(linewidth=2, foreground="black")  # keeps the outline visible on bright tissue
_ERRORS = {"missed": "#00e5ff", "invented": "#ffee00", "wrong class": "#ff30ff"}  # unlike any class or scan


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case, all on one grid.

    Attributes:
        case: its name, as the picture shows it.
        images: scan of each modality the case has, by the modality's name; label maps are drawn over the first.
        reference: reference label map.
        predictions: predicted label maps by title, such as "both", "CT only".
        errors: show the slice with the most wrong voxels instead of that with most of the reference.
    """

    case: str
    images: Mapping[str, str | PathLike]
    reference: str | PathLike
    predictions: Mapping[str, str | PathLike]
    errors: bool = False


@dataclass(frozen=True)
class _Slice:
    """One slice of a case.

    Attributes:
        scans: from 0 (black) to 1, by modality.
        labels: label maps by title.
        errors: masks by kind of :data:`_ERRORS`, by the title of a difference.
        aspect: pixel height / width.
    """

    scans: dict[str, np.ndarray]
    labels: dict[str, np.ndarray]
    errors: dict[str, dict[str, np.ndarray]]
    aspect: float

    @property
    def background(self) -> np.ndarray:
        return next(iter(self.scans.values()))

    @property
    def height(self) -> float:
        """Height over width, in mm."""
        return self.background.shape[0] * self.aspect / self.background.shape[1]


def save_overview(
    file: str | PathLike, cases: Sequence[CaseFiles], classes: Mapping[str, Label], differences: bool = False
) -> None:
    """Draw a PNG with a row per case: its scans, the reference, and each prediction with the reference's outline.

    Which slice is shown, and which way up, is said in :mod:`nnunet_cmc.evaluation.slices`.

    Args:
        cases: one or more; a modality or prediction that a case lacks leaves an empty panel.
        classes: name and label of each foreground class.
        differences: beside each prediction show where it differs from the reference.
    """
    modalities = dict.fromkeys(name for case in cases for name in case.images)
    titles = dict.fromkeys(title for case in cases for title in case.predictions)
    predictions = [column for title in titles for column in ([title, _difference(title)] if differences else [title])]
    columns = [*modalities, "reference", *predictions]
    colors = class_colors(classes)
    slices = [_cut(case, classes) for case in cases]

    heights = [_PANEL * cut.height for cut in slices]
    legend_rows = -(-(len(classes) + 1 + len(_ERRORS) * differences) // _LEGEND_COLUMNS)
    size = (_PANEL * len(columns) + 0.3, sum(heights) + 0.4 + 0.3 * legend_rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(len(cases), len(columns), squeeze=False, height_ratios=heights)
    for axis, title in zip(axes[0], columns, strict=True):
        axis.set_title(title)
    for row, case, cut in zip(axes, cases, slices, strict=True):
        row[0].set_ylabel(case.case, fontsize="small")
        for axis, column in zip(row, columns, strict=True):
            _draw(axis, column, cut, classes, colors)
    outline = Line2D([], [], color="white", linewidth=_OUTLINE_WIDTH, path_effects=[_STROKE])
    outline.set_label("outline of the reference")
    patches: dict = {**colors}
    if differences:
        patches |= {f"difference: {kind}": color for kind, color in _ERRORS.items()}
    handles = [*(Patch(color=color, label=name) for name, color in patches.items()), outline]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), _LEGEND_COLUMNS), frameon=False)
    save_figure(figure, file, dpi=150)


def _cut(case: CaseFiles, classes: Mapping[str, Label]) -> _Slice:
    """The slice of the case that it asks for; of the predicted classes if the reference has none."""
    reference, spacing = read_volume(case.reference)
    predictions = {title: read_volume(file)[0] for title, file in case.predictions.items()}
    shown, what = [reference, *predictions.values()], classes
    if case.errors:
        wrong = [np.any([*_errors(reference, labels, classes).values()], axis=0) for labels in predictions.values()]
        shown, what = [np.any(wrong, axis=0).astype(int)], {"wrong": 1}
    plane = best_plane(shown, what, spacing)
    scans = {name: plane.cut(window(read_volume(file)[0])) for name, file in case.images.items()}
    labels = {title: plane.cut(volume) for title, volume in {"reference": reference, **predictions}.items()}
    errors = {_difference(title): _errors(labels["reference"], labels[title], classes) for title in predictions}
    return _Slice(scans, labels, errors, plane.aspect)


def _difference(title: str) -> str:
    return "difference" if title == "prediction" else f"{title}: difference"


def _errors(reference: np.ndarray, prediction: np.ndarray, classes: Mapping[str, Label]) -> dict[str, np.ndarray]:
    """Masks of the voxels that are wrong, by kind; where the reference is neither a class nor 0 nothing is."""
    there, found = (np.any([mask_of(m, label) for label in classes.values()], axis=0) for m in (reference, prediction))
    kinds = (there & ~found, found & (reference == 0), there & found & (reference != prediction))
    return dict(zip(_ERRORS, kinds, strict=True))


def _draw(axis: Axes, column: str, cut: _Slice, classes: Mapping[str, Label], colors: Mapping[str, tuple]) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if column not in {*cut.scans, *cut.labels, *cut.errors}:
        axis.set_box_aspect(cut.height)
        axis.text(0.5, 0.5, "not available", ha="center", va="center", transform=axis.transAxes, color="grey")
        return
    scan = cut.scans.get(column, cut.background)
    axis.imshow(scan, cmap="gray", vmin=0, vmax=1, aspect=cut.aspect, interpolation="nearest")
    if column in cut.scans:
        return
    if column in cut.errors:
        parts = [(mask, (*to_rgb(_ERRORS[kind]), 0.85)) for kind, mask in cut.errors[column].items()]
    else:
        parts = [(mask_of(cut.labels[column], label), (*colors[name][:3], 0.6)) for name, label in classes.items()]
    overlay = np.zeros((*cut.background.shape, 4))
    for mask, color in parts:
        overlay[mask] = color
    axis.imshow(overlay, aspect=cut.aspect, interpolation="nearest")
    if column == "reference" or column in cut.errors:
        return
    for label in classes.values():
        outline = mask_of(cut.labels["reference"], label)
        if outline.any():
            contour = axis.contour(outline, levels=[0.5], colors="white", linewidths=_OUTLINE_WIDTH)
            contour.set_path_effects([_STROKE])
