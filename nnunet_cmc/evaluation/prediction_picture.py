"""Pictures of predictions over the scans they were made from."""

from collections.abc import Mapping, Sequence
from os import PathLike

from matplotlib.patches import Patch

from nnunet_cmc.evaluation.case_pictures import CaseFiles
from nnunet_cmc.evaluation.panels import Panel, PanelRow, class_outlines, class_overlay, draw_panels, outline_handle
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import choose_slices, colors_of, masks_of, read_volume, window
from nnunet_cmc.utils.files import save_figure


def save_overview(file: str | PathLike, cases: Sequence[CaseFiles], classes: Mapping[str, Label]) -> None:
    """Draw a PNG with a row per slice: the scans, the reference, and each prediction with the reference's outline.

    Args:
        cases: one or more, each with a reference and as many slices as show all of its classes; a modality or
            prediction that a case lacks leaves an empty panel.
        classes: name and label of each foreground class.
    """
    modalities = dict.fromkeys(name for case in cases for name in case.images)
    titles = dict.fromkeys(title for case in cases for title in case.predictions)
    columns = [*modalities, "reference", *titles]
    colors = colors_of(classes)
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    outline = outline_handle("white", "outline of the reference")
    rows = [row for case in cases for row in _rows(case, columns, classes, colors)]
    save_figure(draw_panels(rows, columns, [*handles, outline], margins=(0.3, 0.4))[0], file, dpi=150)


def _rows(
    case: CaseFiles, columns: Sequence[str], classes: Mapping[str, Label], colors: Mapping[str, tuple]
) -> list[PanelRow]:
    """Return the panels of each slice; it shows predicted classes only if the reference has none."""
    assert case.reference is not None
    reference, spacing = read_volume(case.reference)
    scans = {name: window(read_volume(file)[0]) for name, file in case.images.items()}
    predictions = {title: read_volume(file)[0] for title, file in case.predictions.items()}
    shown = next((labels for labels in (reference, *predictions.values()) if labels.any()), reference)
    slices = choose_slices(masks_of(shown, classes), shown.shape, spacing)
    rows = []
    for plane in slices.planes:
        panels = {name: Panel(plane.cut(scan)) for name, scan in scans.items()}
        background, truth = next(iter(panels.values())).scan, plane.cut(reference)
        outlines = class_outlines(truth, classes, dict.fromkeys(classes, "white"))
        panels["reference"] = Panel(background, class_overlay(truth, classes, colors))
        for title, volume in predictions.items():
            panels[title] = Panel(background, class_overlay(plane.cut(volume), classes, colors), outlines)
        rows.append(PanelRow(case.case, [panels.get(column, Panel(None)) for column in columns], plane.aspect))
    return rows
