"""Pictures of the cases of a raw dataset, a row each."""

from collections.abc import Mapping, Sequence
from os import PathLike

import numpy as np
from matplotlib.patches import Patch

from nnunet_cmc.evaluation.inspection import CaseSummary
from nnunet_cmc.evaluation.panels import Panel, Row, class_outlines, class_overlay, draw_panels
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, class_colors, read_volume, window
from nnunet_cmc.utils.files import save_figure


def save_cases(
    file: str | PathLike, facts: Sequence[CaseSummary], modalities: Sequence[str], classes: Mapping[str, Label]
) -> None:
    """Draw a PNG with a row per case: what it is, each modality with the label's outlines, and the label.

    Args:
        facts: of one or more cases.
        modalities: names of all modalities, a column each; one that a case lacks leaves an empty panel.
        classes: name and label of each foreground class.
    """
    colors = class_colors(classes)
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    rows = [_row(case, modalities, classes, colors) for case in facts]
    margins = (0.0, 0.4 + 0.15 * len(facts))
    save_figure(draw_panels(rows, [*modalities, "label"], handles, margins=margins, title_width=2.0)[0], file, dpi=110)


def _row(
    facts: CaseSummary, modalities: Sequence[str], classes: Mapping[str, Label], colors: Mapping[str, tuple]
) -> Row:
    volumes = {modality: read_volume(facts.case.images[modality]) for modality in facts.ranges}
    first, spacing = next(iter(volumes.values()))
    labels = np.zeros(first.shape, np.uint8) if facts.case.label is None else read_volume(facts.case.label)[0]
    plane = best_plane([labels], classes, spacing)
    scans = {modality: plane.cut(window(volume)) for modality, (volume, _) in volumes.items()}
    shown = plane.cut(labels)
    outlines = class_outlines(shown, classes, colors)
    panels = [Panel(scans.get(name), outlines=outlines, reason="not scanned") for name in modalities]
    if facts.case.label is None:
        panels.append(Panel(None, reason="no label"))
    else:
        panels.append(Panel(next(iter(scans.values())), class_overlay(shown, classes, colors)))
    case, grid = facts.case, facts.grid
    description = [
        case.name,
        *([f"of {case.subject}"] if case.subject != case.name else []),
        case.part if case.part == "unlabelled" else f"{case.part}, {'labelled' if case.label else 'not labelled'}",
        " x ".join(map(str, grid.size)),
        " x ".join(f"{step:.3g}" for step in grid.spacing) + " mm",
        *(f"{modality}: {low:.4g} to {high:.4g}" for modality, (low, high) in facts.ranges.items()),
    ]
    return Row("\n".join(description), panels, plane.aspect)
