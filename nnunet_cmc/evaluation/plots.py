"""A comparison as figures: how the cases are distributed, and how the predictions' means compare."""

from math import isfinite
from os import PathLike

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_cmc.evaluation.comparison import COMPARED, Comparison
from nnunet_cmc.evaluation.paper_table import TITLES

COLORS = colormaps["tab10"].colors  # type: ignore[attr-defined]
SCALE = {"Dice": 100.0, "ASSD": 1.0}  # as the table's titles say
_SIDE_BY_SIDE = 16  # boxes that fit into half of the width
_WIDTH = 11.0  # inches


def save_distributions(file: str | PathLike, comparison: Comparison) -> None:
    """Draw a PNG: Dice and ASSD of every case, per modality, class and prediction, as boxes with all their points.

    A box spans the middle half of the cases, its line is the median, its whiskers reach all of them.
    """
    boxes = len(comparison.classes) * len(comparison.names)
    columns = len(COMPARED) if boxes <= _SIDE_BY_SIDE else 1
    panels = [(group, metric) for group in comparison.groups for metric in COMPARED]
    rows = len(panels) // columns
    figure = Figure(figsize=(_WIDTH, 3.0 * rows + 0.4), layout="constrained", facecolor="white")
    axes = figure.subplots(rows, columns, squeeze=False)
    first: dict[str, Axes] = {}
    for axis, (group, metric) in zip(axes.flat, panels, strict=True):
        axis.sharey(first.setdefault(metric, axis))  # modalities can be compared
        _boxes(axis, comparison, group, metric)
        axis.set_title(f"{group}: {TITLES[metric]}", loc="left", fontsize="medium")
        axis.grid(axis="y", alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    if len(comparison.names) > 1:
        _legend(figure, axes[0, 0])
    figure.savefig(file, dpi=150)


def _boxes(axis: Axes, comparison: Comparison, group: str, metric: str) -> None:
    count = len(comparison.names)
    step = 0.8 / count
    jitter = np.random.default_rng(0)
    for i, (name, evaluation) in enumerate(comparison.evaluations.items()):
        color = COLORS[i % len(COLORS)]
        cases = evaluation.of_group(group)
        for x, class_name in enumerate(comparison.classes):
            values = SCALE[metric] * np.array([case.metrics[class_name][metric] for case in cases])
            values = values[np.isfinite(values)]
            place = x + (i - (count - 1) / 2) * step
            style = {"color": color, "linewidth": 1.2}
            axis.boxplot(
                values, positions=[place], widths=0.8 * step, whis=(0, 100), manage_ticks=False, showcaps=False,
                boxprops=style, whiskerprops=style, medianprops=style | {"linewidth": 2.5},
            )  # fmt: skip
            shift = jitter.uniform(-0.2, 0.2, len(values)) * step
            axis.plot(place + shift, values, ".", color=color, alpha=0.5, markersize=5, label=name if x == 0 else None)
    axis.set_xticks(range(len(comparison.classes)), comparison.classes)
    if len(comparison.classes) > 6:
        axis.tick_params(axis="x", labelrotation=30)
    axis.set_xlim(-0.6, len(comparison.classes) - 0.4)
    axis.set_ylim(bottom=0 if metric == "ASSD" else None)


def save_comparison(file: str | PathLike, comparison: Comparison) -> None:
    """Draw a PNG of the average over classes with its bootstrap interval, per modality: bars for the predictions.

    Where all predictions are named by numbers, such as fractions of labels, a curve over the numbers instead.
    """
    numbers = _numbers(comparison.names)
    figure = Figure(figsize=(_WIDTH, 3.6), layout="constrained", facecolor="white")
    axes = figure.subplots(1, len(COMPARED))
    for axis, metric in zip(axes, COMPARED, strict=True):
        for i, group in enumerate(comparison.groups):
            cells = [comparison.cells[name, group, metric, comparison.columns[-1]] for name in comparison.names]
            mean, low, high = SCALE[metric] * np.array([(cell.mean, cell.low, cell.high) for cell in cells]).T
            style = {"label": group, "color": COLORS[i % len(COLORS)]}
            errors = np.nan_to_num([mean - low, high - mean])
            if numbers is None:
                width = 0.8 / len(comparison.groups)
                place = np.arange(len(mean)) + (i - (len(comparison.groups) - 1) / 2) * width
                bars = axis.bar(place, mean, 0.9 * width, yerr=errors, capsize=3, ecolor="#333", **style)
                labels = [f"{value:.{1 if metric == 'Dice' else 2}f}" if isfinite(value) else "" for value in mean]
                axis.bar_label(bars, labels, padding=2, fontsize="small")
            else:
                order = np.argsort(numbers)
                x = np.array(numbers)[order]
                axis.errorbar(x, mean[order], yerr=errors[:, order], marker="o", capsize=3, **style)
        axis.set_title(f"{TITLES[metric]}, {comparison.columns[-1]}", loc="left", fontsize="medium")
        axis.grid(axis="y", alpha=0.3)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
        if numbers is None:
            axis.set_xticks(range(len(comparison.names)), comparison.names)
            axis.margins(y=0.12)
        else:
            axis.set_xticks(numbers, comparison.names)
            axis.set_xlabel("name of the prediction, a number")
    _legend(figure, axes[0])
    figure.savefig(file, dpi=150)


def _numbers(names: list[str]) -> list[float] | None:
    try:
        numbers = [float(name) for name in names]
    except ValueError:
        return None
    return numbers if all(map(isfinite, numbers)) else None


def _legend(figure: Figure, axis: Axes) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
