"""The stress tests of several models in the same figures."""

from collections.abc import Mapping
from operator import add
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_cmc.data.files import read_json, save_figure
from nnunet_cmc.evaluation.paired_statistics import COMPARED
from nnunet_cmc.evaluation.paper_table import MARK, TITLES, number
from nnunet_cmc.evaluation.plots import COLORS, DPI, SCALE

REMEDY = "name the output folder of a finished nnunet_cmc stress"
_KINDS = {"mm": "{} shifted [mm]", "degrees": "{} turned [degrees]"}


class StressRuns:
    """What ``nnunet_cmc stress`` wrote about several models, by the name of each.

    Args:
        folders: output folder of each test.

    Raises:
        ValueError: a folder has no sound ``stress.json``, or the tests differ in their conditions or numbers of cases.
    """

    def __init__(self, folders: Mapping[str, str | PathLike]):
        self.runs: dict[str, dict[str, dict]] = {}
        for name, folder in folders.items():
            self.runs[name] = {entry["condition"]: entry for entry in _conditions(Path(folder, "stress.json"))}
        (first, reference), *others = self.runs.items()
        for name, run in others:
            for condition in {**reference, **run}:
                counts = [one.get(condition, {}).get("cases", 0) for one in (reference, run)]
                if counts[0] != counts[1]:
                    raise ValueError(
                        f"The stress tests of {first} and {name} differ: {condition} has {counts[0]} and {counts[1]} "
                        "cases; test both on the same scans."
                    )
        self.subsets = [name for name, entry in reference.items() if not entry["moved"]]
        self.moved = list(dict.fromkeys(entry["moved"] for entry in reference.values() if entry["moved"]))

    def save_figures(self, folder: str | PathLike) -> list[Path]:
        """Write ``missing.png`` and ``misalignment.png``: average over the classes, a line per model."""
        files = [Path(folder, "missing.png"), Path(folder, "misalignment.png")]
        for file, figure in zip(files, (self._missing(), self._misalignment()), strict=True):
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncols=6, frameon=False)
            save_figure(figure, file, dpi=DPI)
        return files

    def _missing(self) -> Figure:
        figure = Figure(figsize=(11, 3.8), layout="constrained", facecolor="white")
        for axis, metric in zip(figure.subplots(1, len(COMPARED)), COMPARED, strict=True):
            place = np.arange(len(self.subsets))
            width = 0.8 / len(self.runs)
            for i, (name, run) in enumerate(self.runs.items()):
                means = [SCALE[metric] * run[subset]["mean"][metric] for subset in self.subsets]
                shift = (i - (len(self.runs) - 1) / 2) * width
                bars = axis.bar(place + shift, means, 0.9 * width, color=COLORS[i % len(COLORS)], label=name)
                marks = [MARK if _flattered(run[subset], metric) else "" for subset in self.subsets]
                labels = [number(metric, run[subset]["mean"][metric]) for subset in self.subsets]
                axis.bar_label(bars, list(map(add, labels, marks)), padding=2, fontsize="small")
            axis.set_xticks(place, self.subsets)
            axis.set_xlabel("modalities given")
            axis.margins(y=0.12)
            axis.set_ylabel(TITLES[metric])
            _finish(axis)
        return figure

    def _misalignment(self) -> Figure:
        figure = Figure(figsize=(14, 2.8 * len(self.moved) + 0.5), layout="constrained", facecolor="white")
        columns = [(metric, kind) for metric in COMPARED for kind in _KINDS]
        axes = figure.subplots(len(self.moved), len(columns), squeeze=False)
        for i, row in enumerate(axes):
            for j, (axis, (metric, kind)) in enumerate(zip(row, columns, strict=True)):
                axis.sharey(axes[0, j - j % len(_KINDS)])  # every panel of a metric
                self._curves(axis, self.moved[i], metric, kind)
                if j % len(_KINDS) == 0:
                    axis.set_ylabel(TITLES[metric])
                _finish(axis)
        return figure

    def _curves(self, axis: Axes, moved: str, metric: str, kind: str) -> None:
        for i, (name, run) in enumerate(self.runs.items()):
            line = [run[self.subsets[0]], *(entry for entry in run.values() if entry["moved"] == moved and entry[kind])]
            x, y = [entry[kind] for entry in line], [SCALE[metric] * entry["mean"][metric] for entry in line]
            color = COLORS[i % len(COLORS)]
            axis.plot(x, y, "o-", color=color, markersize=5, label=name)
            hollow = [_flattered(entry, metric) for entry in line]
            axis.plot(np.array(x)[hollow], np.array(y)[hollow], "o", color=color, markersize=5, markerfacecolor="white")
        axis.set_xlabel(_KINDS[kind].format(moved))


def _conditions(file: Path) -> list[dict]:
    """The conditions in a ``stress.json``, with all that is drawn of them."""
    content = read_json(file, REMEDY)
    conditions = content.get("conditions") if isinstance(content, dict) else None
    if not (isinstance(conditions, list) and conditions and all(map(_is_condition, conditions))):
        raise ValueError(f"{file} has no conditions as nnunet_cmc stress writes them: {REMEDY}.")
    for entry in conditions:
        entry["mean"] |= {metric: float("nan") for metric in COMPARED if entry["mean"][metric] is None}
    return conditions


def _is_condition(entry: Any) -> bool:
    try:
        names = isinstance(entry["condition"], str) and isinstance(entry["moved"], str)
        counts = [entry["cases"], *(c[metric]["undefined"] for c in entry["classes"].values() for metric in COMPARED)]
        numbers = [entry["mm"], entry["degrees"]]
        means = [entry["mean"][metric] for metric in COMPARED]
    except (AttributeError, KeyError, TypeError):
        return False
    numeric = all(type(n) in (int, float) for n in [*numbers, *(mean for mean in means if mean is not None)])
    return names and numeric and all(type(n) is int for n in counts)


def _flattered(entry: dict, metric: str) -> bool:
    """Whether the mean leaves out cases, in which a class was missed or invented altogether."""
    return any(statistics[metric]["undefined"] for statistics in entry["classes"].values())


def _finish(axis: Axes) -> None:
    axis.grid(axis="y", alpha=0.3)
    axis.set_axisbelow(True)
    axis.spines[["top", "right"]].set_visible(False)
