"""The two figures of a stress test."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_cmc.data.files import save_figure
from nnunet_cmc.evaluation.paired_statistics import COMPARED
from nnunet_cmc.evaluation.paper_table import TITLES
from nnunet_cmc.evaluation.plots import COLORS, DPI, SCALE
from nnunet_cmc.evaluation.results import Evaluation, name_of_mean
from nnunet_cmc.evaluation.stress_testing import Condition

_HOLLOW = "hollow: a class was missed or invented in some case, which is not in the mean, so the point flatters"


def save_stress_figures(
    evaluations: Mapping[Condition, Evaluation], names: Sequence[str], output: str | PathLike
) -> list[Path]:
    """Write ``missing.png`` and ``misalignment.png``; returns both files.

    Args:
        names: of the modalities, by channel.
    """
    files = [Path(output, "missing.png"), Path(output, "misalignment.png")]
    save_figure(_missing(evaluations), files[0], dpi=DPI)
    save_figure(_misalignment(evaluations, names), files[1], dpi=DPI)
    return files


def _missing(evaluations: Mapping[Condition, Evaluation]) -> Figure:
    """Dice and ASSD of each class, and their average, for every set of modalities."""
    subsets = [condition for condition in evaluations if condition.moved is None]
    figure = Figure(figsize=(11, 4), layout="constrained", facecolor="white")
    hollow = False
    for axis, metric in zip(figure.subplots(1, len(COMPARED)), COMPARED, strict=True):
        classes = list(evaluations[subsets[0]].classes)
        for i, name in enumerate(classes):
            means = [evaluations[subset].statistic(name, metric).mean for subset in subsets]
            flattered = [evaluations[subset].undefined(name, metric) > 0 for subset in subsets]
            hollow |= _line(axis, range(len(subsets)), means, flattered, metric, name, COLORS[i % len(COLORS)])
        if len(classes) > 1:
            means = [evaluations[subset].mean(metric).mean for subset in subsets]
            flattered = [_flattered(evaluations[subset], metric) for subset in subsets]
            average = name_of_mean(classes)
            hollow |= _line(axis, range(len(subsets)), means, flattered, metric, average, "black", linewidth=2.5)
        axis.set_xticks(range(len(subsets)), [condition.name for condition in subsets])
        axis.set_xlabel("modalities given")
        axis.margins(x=0.1)
        _finish(axis, metric)
    return _with_legend(figure, hollow)


def _misalignment(evaluations: Mapping[Condition, Evaluation], names: Sequence[str]) -> Figure:
    """Average Dice and ASSD over distance and angle, a line per moved modality; dashed: the case without it."""
    aligned = next(condition for condition in evaluations if condition.given is None and condition.moved is None)
    kinds = {"millimetres": "shift [mm]", "degrees": "rotation [degrees]"}
    figure = Figure(figsize=(11, 7), layout="constrained", facecolor="white")
    hollow = False
    for row, metric in zip(figure.subplots(len(COMPARED), len(kinds), sharey="row"), COMPARED, strict=True):
        for axis, (kind, label) in zip(row, kinds.items(), strict=True):
            for channel, name in enumerate(names):
                line = [aligned, *(c for c in evaluations if c.moved == channel and getattr(c, kind))]
                means = [evaluations[condition].mean(metric).mean for condition in line]
                flattered = [_flattered(evaluations[condition], metric) for condition in line]
                x, color = [getattr(condition, kind) for condition in line], COLORS[channel % len(COLORS)]
                hollow |= _line(axis, x, means, flattered, metric, f"{name} misaligned", color)
                others = tuple(c for c in range(len(names)) if c != channel)
                for condition in (c for c in evaluations if c.given == others):
                    without = SCALE[metric] * evaluations[condition].mean(metric).mean
                    axis.axhline(without, color=color, linestyle="--", alpha=0.7, label=f"without {name}")
            axis.set_xlabel(label)
            _finish(axis, metric)
    return _with_legend(figure, hollow)


def _flattered(evaluation: Evaluation, metric: str) -> bool:
    return any(evaluation.undefined(name, metric) for name in evaluation.classes)


def _line(
    axis: Axes, x: Sequence[float], means: Sequence[float], flattered: Sequence[bool], metric: str, label: str, color,
    linewidth: float = 1.5,
) -> bool:  # fmt: skip
    """Draw a line whose points are hollow where ``flattered``; returns whether any is."""
    y = SCALE[metric] * np.array(means)
    axis.plot(x, y, "-", color=color, linewidth=linewidth)
    axis.plot(x, y, "o", color=color, label=label)
    axis.plot(np.array(x)[flattered], y[flattered], "o", color=color, markerfacecolor="white")
    return any(flattered)


def _finish(axis: Axes, metric: str) -> None:
    axis.set_ylabel(TITLES[metric])
    axis.grid(axis="y", alpha=0.3)
    axis.spines[["top", "right"]].set_visible(False)


def _with_legend(figure: Figure, hollow: bool) -> Figure:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
    if hollow:
        figure.supxlabel(_HOLLOW, fontsize="small", color="#555")
    return figure
