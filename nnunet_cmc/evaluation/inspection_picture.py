"""Pictures of the cases of a raw dataset, a row each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from nnunet_cmc.data.files import save_figure
from nnunet_cmc.evaluation.folder_evaluation import mask_of
from nnunet_cmc.evaluation.inspection import Facts
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import best_plane, class_colors, read_volume, window

_PANEL, _TEXT = 2.4, 2.0  # inches, the widths of a panel and of the text beside the row
_LEGEND_COLUMNS = 5


@dataclass(frozen=True)
class _Row:
    """One slice of a case: scans from 0 (black) to 1 by modality, the label if any, and pixel height / width."""

    scans: dict[str, np.ndarray]
    label: np.ndarray | None
    aspect: float

    @property
    def height(self) -> float:
        """Height over width, in mm."""
        rows, columns = next(iter(self.scans.values())).shape
        return rows * self.aspect / columns


def save_cases(
    file: str | PathLike, facts: Sequence[Facts], modalities: Sequence[str], classes: Mapping[str, Label]
) -> None:
    """Draw a PNG with a row per case: what it is, each modality with the label's outlines, and the label.

    The slice is the one that shows most of the label, or the middle one, and lies as in
    :mod:`nnunet_cmc.evaluation.slices`.

    Args:
        facts: of one or more cases.
        modalities: names of all modalities, a column each; one that a case lacks leaves an empty panel.
        classes: name and label of each foreground class.
    """
    colors = class_colors(classes)
    rows = [_row(case, classes) for case in facts]
    heights = [_PANEL * row.height for row in rows]
    legend_rows = -(-len(classes) // _LEGEND_COLUMNS)
    size = (_TEXT + _PANEL * (len(modalities) + 1), sum(heights) + 0.15 * len(rows) + 0.4 + 0.3 * legend_rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(
        len(rows),
        len(modalities) + 2,
        squeeze=False,
        height_ratios=heights,
        width_ratios=[_TEXT, *[_PANEL] * (len(modalities) + 1)],
    )
    for axis, title in zip(axes[0], ["", *modalities, "label"], strict=True):
        axis.set_title(title)
    for line, case, row in zip(axes, facts, rows, strict=True):
        line[0].axis("off")
        line[0].text(0, 0.5, _description(case), va="center", fontsize="small", transform=line[0].transAxes)
        for axis, modality in zip(line[1:], [*modalities, None], strict=True):
            axis.set_xticks([])
            axis.set_yticks([])
            if modality is None:
                _draw_label(axis, row, classes, colors)
            else:
                _draw_scan(axis, row, modality, classes, colors)
    handles = [Patch(color=color, label=name) for name, color in colors.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), _LEGEND_COLUMNS), frameon=False)
    save_figure(figure, file, dpi=110)


def _row(facts: Facts, classes: Mapping[str, Label]) -> _Row:
    volumes = {modality: read_volume(facts.case.images[modality]) for modality in facts.ranges}
    first, spacing = next(iter(volumes.values()))
    label = None if facts.case.label is None else read_volume(facts.case.label)[0]
    plane = best_plane([np.zeros(first.shape, np.uint8) if label is None else label], classes, spacing)
    scans = {modality: plane.cut(window(volume)) for modality, (volume, _) in volumes.items()}
    return _Row(scans, None if label is None else plane.cut(label), plane.aspect)


def _draw_scan(axis: Axes, row: _Row, modality: str, classes: Mapping[str, Label], colors: Mapping[str, tuple]) -> None:
    if modality not in row.scans:
        _draw_nothing(axis, row, "not scanned")
        return
    _draw_slice(axis, row, row.scans[modality], cmap="gray", vmin=0, vmax=1)
    for name, label in classes.items():
        if row.label is not None and (mask := mask_of(row.label, label)).any():
            axis.contour(mask, levels=[0.5], colors=[colors[name]], linewidths=0.8)


def _draw_label(axis: Axes, row: _Row, classes: Mapping[str, Label], colors: Mapping[str, tuple]) -> None:
    if row.label is None:
        _draw_nothing(axis, row, "no label")
        return
    overlay = np.zeros((*row.label.shape, 4))
    for name, label in classes.items():
        overlay[mask_of(row.label, label)] = (*colors[name][:3], 0.6)
    _draw_slice(axis, row, next(iter(row.scans.values())), cmap="gray", vmin=0, vmax=1)
    _draw_slice(axis, row, overlay)


def _draw_slice(axis: Axes, row: _Row, slice_: np.ndarray, **options: Any) -> None:
    axis.imshow(slice_, aspect=row.aspect, interpolation="nearest", **options)


def _draw_nothing(axis: Axes, row: _Row, why: str) -> None:
    axis.set_box_aspect(row.height)
    axis.text(0.5, 0.5, why, ha="center", va="center", transform=axis.transAxes, color="grey")


def _description(facts: Facts) -> str:
    case, grid = facts.case, facts.grid
    lines = [
        case.name,
        *([f"of {case.subject}"] if case.subject != case.name else []),
        case.part if case.part == "unlabelled" else f"{case.part}, {'labelled' if case.label else 'not labelled'}",
        " x ".join(map(str, grid.size)),
        " x ".join(f"{step:.3g}" for step in grid.spacing) + " mm",
        *(f"{modality}: {low:.4g} to {high:.4g}" for modality, (low, high) in facts.ranges.items()),
    ]
    return "\n".join(lines)
