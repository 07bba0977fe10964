"""Rows of panels: slices of scans with coloured overlays and outlines, the layout of every picture of cases."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from nnunet_cmc.evaluation.label_maps import mask_of
from nnunet_cmc.evaluation.results import Label

_STROKE = withStroke(linewidth=2, foreground="black")  # keeps white outlines visible on bright tissue
_LEGEND_COLUMNS = 5


class Panel(NamedTuple):
    """One slice."""

    scan: np.ndarray | None  # (rows, columns) from 0 (black) to 1; None for an empty panel
    overlay: np.ndarray | None = None  # RGBA (rows, columns, 4), drawn over the scan
    outlines: Sequence[tuple[np.ndarray, Any]] = ()  # masks (rows, columns) and the colour of each one's outline


class PanelRow(NamedTuple):
    """Panels of one case, at least one of them with a scan; ``aspect`` is the height of a pixel over its width."""

    title: str
    panels: Sequence[Panel]
    aspect: float

    @property
    def height(self) -> float:
        """Height of a panel over its width, in mm."""
        rows, columns = next(panel.scan.shape for panel in self.panels if panel.scan is not None)
        return rows * self.aspect / columns


def draw_panels(
    rows: Sequence[PanelRow],
    titles: Sequence[str],
    handles: Sequence[Artist],
    *,
    margins: tuple[float, float],
    width: float = 2.4,
    outline_width: float = 0.8,
) -> tuple[Figure, np.ndarray]:
    """Draw a figure with a row of panels per case and a legend below; returns it and its axes.

    Args:
        titles, handles: of the columns, of the legend.
        margins: width and height in inches that are added to those of panels and legend.
        width, outline_width: of a panel in inches, of the outlines in points.
    """
    heights = [width * row.height for row in rows]
    legend_rows = -(-len(handles) // _LEGEND_COLUMNS)
    size = (width * len(titles) + margins[0], sum(heights) + margins[1] + 0.3 * legend_rows)
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(len(rows), len(titles), squeeze=False, height_ratios=heights)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for row, own in zip(rows, axes, strict=True):
        own[0].set_ylabel(row.title, fontsize="small")
        for axis, panel in zip(own, row.panels, strict=True):
            _draw_panel(axis, panel, row, outline_width)
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), _LEGEND_COLUMNS), frameon=False)
    return figure, axes


def _draw_panel(axis: Axes, panel: Panel, row: PanelRow, outline_width: float) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    if panel.scan is None:
        axis.set_box_aspect(row.height)
        axis.text(0.5, 0.5, "not available", ha="center", va="center", transform=axis.transAxes, color="grey")
        return
    axis.imshow(panel.scan, cmap="gray", vmin=0, vmax=1, aspect=row.aspect, interpolation="nearest")
    if panel.overlay is not None:
        axis.imshow(panel.overlay, aspect=row.aspect, interpolation="nearest")
    for mask, color in panel.outlines:
        contour = axis.contour(mask, levels=[0.5], colors=[color], linewidths=outline_width)
        if color == "white":
            contour.set_path_effects([_STROKE])


def outline_handle(color: Any, label: str) -> Line2D:
    """Return an outline for the legend."""
    effects = [_STROKE] if color == "white" else []
    return Line2D([], [], color=color, label=label, linewidth=0.8, path_effects=effects)


def class_overlay(labels: np.ndarray, classes: Mapping[str, Label], colors: Mapping[str, tuple]) -> np.ndarray:
    """Return an RGBA image ``(rows, columns, 4)`` of a label map, translucent."""
    image = np.zeros((*labels.shape, 4))
    for name, label in classes.items():
        image[mask_of(labels, label)] = (*colors[name][:3], 0.6)
    return image


def class_outlines(
    labels: np.ndarray, classes: Mapping[str, Label], colors: Mapping[str, Any]
) -> list[tuple[np.ndarray, Any]]:
    """Return the mask and the colour of each class that the label map has."""
    masks = {name: mask_of(labels, label) for name, label in classes.items()}
    return [(mask, colors[name]) for name, mask in masks.items() if mask.any()]
