"""Pictures of predictions over the scans they were made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike

import numpy as np
from matplotlib.colors import to_rgb
from matplotlib.patches import Patch

from nnunet_cmc.evaluation.folder_evaluation import mask_of
from nnunet_cmc.evaluation.panels import Panel, Row, class_outlines, class_overlay, draw_panels, outline_handle, overlay
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, class_colors, read_volume, window
from nnunet_cmc.utils.files import save_figure

# colours unlike those of any class or scan
_ERRORS = {"false negative": "#00e5ff", "false positive": "#ffee00", "wrong class": "#ff30ff"}


@dataclass(frozen=True)
class CaseFiles:
    """Files of one case, all on one grid; ``case`` is its name as the picture shows it."""

    case: str
    images: Mapping[str, str | PathLike]  # by modality; label maps are drawn over the first
    reference: str | PathLike
    predictions: Mapping[str, str | PathLike]  # by title, such as "both", "CT only"
    errors: bool = False  # show the slice with the most wrong voxels instead of that with most of the reference


def save_overview(
    file: str | PathLike, cases: Sequence[CaseFiles], classes: Mapping[str, Label], differences: bool = False
) -> None:
    """Draw a PNG with a row per case: its scans, the reference, and each prediction with the reference's outline.

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
    patches: dict = colors | {f"difference: {kind}": color for kind, color in _ERRORS.items() if differences}
    handles = [Patch(color=color, label=name) for name, color in patches.items()]
    outline = outline_handle("white", "outline of the reference")
    rows = [_row(case, columns, classes, colors) for case in cases]
    save_figure(draw_panels(rows, columns, [*handles, outline], margins=(0.3, 0.4))[0], file, dpi=150)


def _row(case: CaseFiles, columns: Sequence[str], classes: Mapping[str, Label], colors: Mapping[str, tuple]) -> Row:
    """Return the panels of the slice that the case asks for; of the predicted classes if the reference has none."""
    reference, spacing = read_volume(case.reference)
    predictions = {title: read_volume(file)[0] for title, file in case.predictions.items()}
    shown, what = [reference, *predictions.values()], classes
    if case.errors:
        wrong = [np.any([*_errors(reference, labels, classes).values()], axis=0) for labels in predictions.values()]
        shown, what = [np.any(wrong, axis=0).astype(int)], {"wrong": 1}
    plane = best_plane(shown, what, spacing)

    panels = {name: Panel(plane.cut(window(read_volume(file)[0]))) for name, file in case.images.items()}
    background, truth = next(iter(panels.values())).scan, plane.cut(reference)
    outlines = class_outlines(truth, classes, dict.fromkeys(classes, "white"))
    panels["reference"] = Panel(background, class_overlay(truth, classes, colors))
    for title, volume in predictions.items():
        labels = plane.cut(volume)
        errors = [(mask, (*to_rgb(_ERRORS[kind]), 0.85)) for kind, mask in _errors(truth, labels, classes).items()]
        panels[title] = Panel(background, class_overlay(labels, classes, colors), outlines)
        panels[_difference(title)] = Panel(background, overlay(errors))
    return Row(case.case, [panels.get(column, Panel(None)) for column in columns], plane.aspect)


def _difference(title: str) -> str:
    return "difference" if title == "prediction" else f"{title}: difference"


def _errors(reference: np.ndarray, prediction: np.ndarray, classes: Mapping[str, Label]) -> dict[str, np.ndarray]:
    """Return masks of the wrong voxels by kind; none is wrong where the reference is neither a class nor 0."""
    there, found = (np.any([mask_of(m, label) for label in classes.values()], axis=0) for m in (reference, prediction))
    kinds = (there & ~found, found & (reference == 0), there & found & (reference != prediction))
    return dict(zip(_ERRORS, kinds, strict=True))
