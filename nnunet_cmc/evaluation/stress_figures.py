"""The figures of stress tests: means without modalities and over their misalignment, of one or several models."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from operator import add
from os import PathLike
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nnunet_cmc.evaluation.paired_statistics import REPORTED_METRICS
from nnunet_cmc.evaluation.paper_table import TITLES, number
from nnunet_cmc.evaluation.plots import SCALE, draw_bars, new_axes, save_plot
from nnunet_cmc.evaluation.results import name_of_mean
from nnunet_cmc.evaluation.slices import colors_of
from nnunet_cmc.evaluation.stress_results import leaves_out, read_conditions
from nnunet_cmc.evaluation.tables import MARK

_HOLLOW = "hollow: the mean leaves out cases in which a class is only in the reference or only in the prediction"
_SAME_CASES = "the same cases with all their modalities"
_SIDE_BY_SIDE = 4  # sets of modalities whose names fit below half of the width
_SIZES = {"o": 5, "D": 7, "_": 20}  # of markers
_KINDS = {"mm": ("shift", "shifted"), "degrees": ("rotation", "turned")}


def save_stress_figures(conditions: Sequence[dict], names: Sequence[str], folder: str | PathLike) -> list[Path]:
    """Write ``missing.png`` and ``misalignment.png`` of one model; returns both files.

    Args:
        conditions: what :func:`nnunet_cmc.evaluation.stress_results.summarize` gives.
        names: of the modalities, by channel.
    """
    return _save(folder, _missing(conditions), _misalignment(conditions, names))


def _missing(conditions: Sequence[dict]) -> Figure:
    """Draw Dice and ASSD of each class, and their average, a diamond, for every set of modalities.

    Where sets are of other cases, a dash is the average of the same cases with all that they have.
    """
    subsets = [entry for entry in conditions if not entry["moved"]]
    places, classes = range(len(subsets)), list(subsets[0]["classes"])
    figure, axes = _axes_of_subsets(subsets)
    for axis, metric in zip(axes, REPORTED_METRICS, strict=True):
        for name, color in colors_of(classes).items():
            _points(axis, places, subsets, metric, color, name, class_name=name)
        if len(classes) > 1:
            _points(axis, places, subsets, metric, "black", name_of_mean(classes), marker="D")
        if _of_other_cases(subsets):
            _points(axis, places, _complete(subsets), metric, "black", _SAME_CASES, marker="_")
        axis.margins(x=0.1)
    return _explain_hollow(figure, subsets)


def _misalignment(conditions: Sequence[dict], names: Sequence[str]) -> Figure:
    """Draw average Dice and ASSD over distance and angle, a line per moved modality; dashed: the cases without it."""
    shown = [entry for entry in conditions if entry["moved"]]
    figure, axes = new_axes(len(REPORTED_METRICS), len(_KINDS), (11, 7), sharey="row")
    for axis, (metric, kind) in zip(axes.flat, product(REPORTED_METRICS, _KINDS), strict=True):
        for name, color in colors_of(names).items():
            line = _moved_curve(axis, shown, name, kind, metric, color, f"{name} misaligned")
            if line:
                without = SCALE[metric] * line[0]["without"]["mean"][metric]
                axis.axhline(without, color=color, linestyle="--", alpha=0.7, label=f"without {name}")
        axis.set(xlabel=f"{_KINDS[kind][0]} [{kind}]", ylabel=TITLES[metric])
    return _explain_hollow(figure, shown)


class StressRuns:
    """Results of ``nnunet_cmc stress`` of several models, by the name of each.

    Args:
        folders: output folder of each test.

    Raises:
        ValueError: a folder has no valid ``stress.json``, or the tests differ in their conditions or numbers of cases.
    """

    def __init__(self, folders: Mapping[str, str | PathLike]):
        self.runs: dict[str, dict[str, dict]] = {}
        for name, folder in folders.items():
            self.runs[name] = {entry["condition"]: entry for entry in read_conditions(Path(folder, "stress.json"))}
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
        """Write ``missing.png`` and ``misalignment.png``: average over the classes, a colour per model."""
        return _save(folder, self._missing(), self._misalignment())

    def _missing(self) -> Figure:
        runs = {name: [run[subset] for subset in self.subsets] for name, run in self.runs.items()}
        first, *_ = runs.values()
        figure, axes = _axes_of_subsets(first)
        for axis, metric in zip(axes, REPORTED_METRICS, strict=True):
            series: dict = {}
            for name, subsets in runs.items():
                marks = [MARK * hollow for hollow in _hollow(subsets, metric)]
                texts = [number(metric, entry["mean"][metric]) for entry in subsets]
                series[name] = (_means(subsets, metric), None, list(map(add, texts, marks)))
            drawn = draw_bars(axis, series)
            if _of_other_cases(first):
                complete = np.concatenate([_means(_complete(subsets), metric) for subsets in runs.values()])
                left, right = np.array([(bar.get_x(), bar.get_x() + bar.get_width()) for bar, _ in drawn]).T
                axis.hlines(complete, left, right, color="black", label=_SAME_CASES)
                for (_, text), value in zip(drawn, complete, strict=True):
                    text.xy = (text.xy[0], np.fmax(text.xy[1], value))  # above the bar and the line
        return figure

    def _misalignment(self) -> Figure:
        columns = list(product(REPORTED_METRICS, _KINDS))
        figure, axes = new_axes(len(self.moved), len(columns), (14, 2.8 * len(self.moved) + 0.5))
        for moved, row in zip(self.moved, axes, strict=True):
            for j, (axis, (metric, kind)) in enumerate(zip(row, columns, strict=True)):
                first_of_metric = j - j % len(_KINDS)
                axis.sharey(axes[0, first_of_metric])
                for name, color in colors_of(self.runs).items():
                    _moved_curve(axis, self.runs[name].values(), moved, kind, metric, color, name)
                axis.set(
                    xlabel=f"{moved} {_KINDS[kind][1]} [{kind}]", ylabel=TITLES[metric] if j == first_of_metric else ""
                )
        return figure


def _means(entries: Iterable[dict], metric: str, class_name: str | None = None) -> np.ndarray:
    """Return the means of a class, or the average over classes, as shown."""
    means = [entry["mean"][metric] if class_name is None else entry["classes"][class_name][metric]["mean"]
             for entry in entries]  # fmt: skip
    return SCALE[metric] * np.array(means)


def _hollow(entries: Iterable[dict], metric: str, class_name: str | None = None) -> list[bool]:
    """Return whether each mean leaves out cases, in which a class is only in reference or prediction."""
    return [leaves_out(entry, metric, class_name) for entry in entries]


def _points(
    axis: Axes,
    x: Sequence[float],
    entries: Sequence[dict],
    metric: str,
    color,
    label: str,
    class_name: str | None = None,
    marker: str = "o",
    linestyle: str = "",
) -> None:
    """Draw points, which are hollow where the mean leaves out cases."""
    y, hollow = _means(entries, metric, class_name), _hollow(entries, metric, class_name)
    style = {"marker": marker, "color": color, "markersize": _SIZES[marker]}
    axis.plot(x, y, linestyle=linestyle, label=label, **style)
    axis.plot(np.array(x)[hollow], y[hollow], linestyle="", markerfacecolor="white", **style)


def _moved_curve(
    axis: Axes, entries: Iterable[dict], moved: str, kind: str, metric: str, color, label: str
) -> list[dict]:
    """Draw the average over how far a modality is moved, from the same cases as they are; return what was moved."""
    line = [entry for entry in entries if entry["moved"] == moved and entry[kind]]
    if line:
        distances = [0, *(entry[kind] for entry in line)]
        _points(axis, distances, [line[0]["unmoved"], *line], metric, color, label, linestyle="-")
        axis.set_xticks(distances)
    return line


def _of_other_cases(subsets: Sequence[dict]) -> bool:
    """Return whether a set of modalities has fewer cases than the first, so that their means cannot be compared."""
    return any(one["cases"] < subsets[0]["cases"] for one in subsets)


def _complete(subsets: Sequence[dict]) -> list[dict]:
    """Return, for each set of modalities, the means of its cases with all that they have."""
    return [one.get("complete", one) for one in subsets]


def _axes_of_subsets(subsets: Sequence[dict]) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with axes of Dice and ASSD over sets of modalities, below each other if there are many sets."""
    many = len(subsets) > _SIDE_BY_SIDE
    rows = len(REPORTED_METRICS) if many else 1
    style = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"} if many else {}
    figure, axes = new_axes(rows, len(REPORTED_METRICS) // rows, (11, 4 * rows))
    for axis, metric in zip(axes.flat, REPORTED_METRICS, strict=True):
        axis.set_xticks(range(len(subsets)), _ticks(subsets, " " if many else "\n"), **style)
        axis.set(xlabel="modalities given", ylabel=TITLES[metric])
    return figure, axes.ravel().tolist()


def _ticks(subsets: Sequence[dict], space: str) -> list[str]:
    """Return the names of sets of modalities, with the number of cases where a set has fewer than the first."""
    most = subsets[0]["cases"]
    few = [f"{space}({one['cases']} of {most} cases)" if one["cases"] < most else "" for one in subsets]
    return [one["condition"] + note for one, note in zip(subsets, few, strict=True)]


def _explain_hollow(figure: Figure, entries: Sequence[dict]) -> Figure:
    if any(hollow for metric in REPORTED_METRICS for hollow in _hollow(entries, metric)):
        figure.suptitle(_HOLLOW, fontsize="small", color="#555")  # below, the legend would be drawn over it
    return figure


def _save(folder: str | PathLike, missing: Figure, misalignment: Figure) -> list[Path]:
    files = [Path(folder, "missing.png"), Path(folder, "misalignment.png")]
    for file, figure in zip(files, (missing, misalignment), strict=True):
        save_plot(figure, file)
    return files
