"""Figures of a comparison: distribution of the cases, and means of the predictions with their intervals."""

from collections.abc import Mapping, Sequence
from itertools import product
from math import isfinite
from os import PathLike
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Annotation

from nnunet_cmc.evaluation.paired_statistics import REPORTED_METRICS, Comparison
from nnunet_cmc.evaluation.paper_table import TITLES
from nnunet_cmc.evaluation.slices import colors_of
from nnunet_cmc.utils.files import save_figure

SCALE = {"Dice": 100.0, "ASSD": 1.0}  # as the table's titles say
_SIDE_BY_SIDE = 16  # boxes that fit into half of the width
_WIDTH = 11.0  # inches
DPI = 300  # what journals ask for


def new_axes(rows: int, columns: int, size: tuple[float, float], **options: Any) -> tuple[Figure, np.ndarray]:
    """Return a figure of ``size`` in inches and its axes ``(rows, columns)``; ``options`` are matplotlib's."""
    figure = Figure(figsize=size, layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat:
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return figure, axes


def save_plot(figure: Figure, file: str | PathLike, legend: bool = True) -> None:
    """Save a figure for print, with the legend of its first axis if there is any."""
    handles, labels = figure.axes[0].get_legend_handles_labels()
    if legend and labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    save_figure(figure, file, dpi=DPI)


def draw_bars(
    axis: Axes, series: Mapping[str, tuple[np.ndarray, np.ndarray | None, Sequence[str]]]
) -> list[tuple[Rectangle, Annotation]]:
    """Draw bars side by side: of each series heights ``(N,)``, errors ``(2, N)`` or None, and texts above the bars.

    Returns all bars with their texts.
    """
    drawn: list[tuple[Rectangle, Annotation]] = []
    width, colors = 0.8 / len(series), colors_of(series)
    for i, (label, (heights, errors, texts)) in enumerate(series.items()):
        place = np.arange(len(heights)) + (i - (len(series) - 1) / 2) * width
        style: dict[str, Any] = {"label": label, "color": colors[label], "capsize": 3, "ecolor": "#333"}
        bars = axis.bar(place, heights, 0.9 * width, yerr=errors, **style)
        drawn += zip(bars, axis.bar_label(bars, texts, padding=2, fontsize="small"), strict=True)
    axis.margins(y=0.12)
    return drawn


def save_distributions(file: str | PathLike, comparison: Comparison) -> None:
    """Draw a PNG: Dice and ASSD of every case, per modality, class and prediction, as boxes with all their points.

    A box spans the middle half of the cases, its line is the median, its whiskers reach all of them.
    """
    boxes = len(comparison.classes) * len(comparison.names)
    columns = len(REPORTED_METRICS) if boxes <= _SIDE_BY_SIDE else 1
    panels = list(product(comparison.groups, REPORTED_METRICS))
    rows = len(panels) // columns
    figure, axes = new_axes(rows, columns, (_WIDTH, 3.0 * rows + 0.4))
    first: dict[str, Axes] = {}
    for axis, (group, metric) in zip(axes.flat, panels, strict=True):
        axis.sharey(first.setdefault(metric, axis))  # modalities can be compared
        _draw_boxes(axis, comparison, group, metric)
        axis.set_title(f"{group}: {TITLES[metric]}", loc="left", fontsize="medium")
    first["ASSD"].set_ylim(bottom=0)  # when all is drawn: limits that are set no longer follow what is drawn
    save_plot(figure, file, legend=len(comparison.names) > 1)


def _draw_boxes(axis: Axes, comparison: Comparison, group: str, metric: str) -> None:
    count = len(comparison.names)
    step = 0.8 / count
    jitter, colors = np.random.default_rng(0), colors_of(comparison.names)
    for i, (name, evaluation) in enumerate(comparison.evaluations.items()):
        cases = evaluation.of_group(group)
        for x, class_name in enumerate(comparison.classes):
            values = SCALE[metric] * np.array([case.metrics[class_name][metric] for case in cases])
            values = values[np.isfinite(values)]
            place = x + (i - (count - 1) / 2) * step
            style: dict[str, Any] = {"color": colors[name], "linewidth": 1.2}
            axis.boxplot(
                values, positions=[place], widths=0.8 * step, whis=(0, 100), manage_ticks=False, showcaps=False,
                boxprops=style, whiskerprops=style, medianprops=style | {"linewidth": 2.5},
            )  # fmt: skip
            shift = jitter.uniform(-0.2, 0.2, len(values)) * step
            label = name if x == 0 else None
            axis.plot(place + shift, values, ".", color=colors[name], alpha=0.5, markersize=5, label=label)
    axis.set_xticks(range(len(comparison.classes)), comparison.classes)
    if len(comparison.classes) > 6:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_xlim(-0.6, len(comparison.classes) - 0.4)


def save_averages(file: str | PathLike, comparison: Comparison) -> None:
    """Draw a PNG of the average over classes with its bootstrap interval, per modality: bars for the predictions.

    Curves instead, where all predictions are named by numbers, such as fractions of labels, or by a method and a number
    as in ``CMC@0.1``: a line for each method.
    """
    curves = _curves(comparison.names)
    rows = len(comparison.groups) if curves else 1
    figure, axes = new_axes(rows, len(REPORTED_METRICS), (_WIDTH, 3.0 * rows + 0.6))
    for column, metric in enumerate(REPORTED_METRICS):
        if curves:
            for axis, group in zip(axes[:, column], comparison.groups, strict=True):
                _draw_curves(axis, comparison, curves, group, metric)
        else:
            _draw_means(axes[0, column], comparison, metric)
    save_plot(figure, file)


def _draw_means(axis: Axes, comparison: Comparison, metric: str) -> None:
    names, series = comparison.names, {}
    for group in comparison.groups:
        mean, errors = _means(comparison, names, group, metric)
        texts = [f"{value:.{1 if metric == 'Dice' else 2}f}" if isfinite(value) else "" for value in mean]
        series[group] = (mean, errors, texts)
    draw_bars(axis, series)
    turned = max(map(len, names)) * len(names) > 50
    axis.set_xticks(range(len(names)), names, rotation=20 * turned, ha="right" if turned else "center")
    axis.set_title(f"{TITLES[metric]}, {comparison.columns[-1]}", loc="left", fontsize="medium")


def _draw_curves(
    axis: Axes, comparison: Comparison, curves: dict[str, dict[float, str]], group: str, metric: str
) -> None:
    colors = colors_of(curves)
    for method, names in curves.items():
        mean, errors = _means(comparison, list(names.values()), group, metric)
        style: dict[str, Any] = {"label": method or None, "color": colors[method]}
        axis.errorbar(list(names), mean, yerr=errors, marker="o", capsize=3, **style)
    ticks = sorted({number for names in curves.values() for number in names})
    axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axis.set_xlabel("number in the prediction's name, such as the fraction of labels")
    axis.set_title(f"{group}: {TITLES[metric]}, {comparison.columns[-1]}", loc="left", fontsize="medium")


def _means(comparison: Comparison, names: list[str], group: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
    """Return means ``(N,)`` and how far their intervals reach below and above ``(2, N)``, as shown."""
    cells = [comparison.cells[name, group, metric, comparison.columns[-1]] for name in names]
    mean, low, high = SCALE[metric] * np.array([(cell.mean, cell.low, cell.high) for cell in cells]).T
    return mean, np.nan_to_num([mean - low, high - mean])


def _curves(names: list[str]) -> dict[str, dict[float, str]] | None:
    """Return predictions by rising number for each method ("" where names are numbers).

    None if a name has no number, or two of a method have the same.
    """
    curves: dict[str, dict[float, str]] = {}
    for name in names:
        method, _, number = name.rpartition("@")
        try:
            x = float(number)
        except ValueError:
            return None
        if not isfinite(x) or curves.setdefault(method, {}).setdefault(x, name) != name:
            return None
    return {method: dict(sorted(points.items())) for method, points in curves.items()}
