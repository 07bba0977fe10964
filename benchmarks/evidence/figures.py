"""The figures of docs/results.md, of records alone."""

from pathlib import Path

import numpy as np
from arrangements import ARRANGEMENTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from sources import LGG
from systems import STOCK_PLANNERS
from table import Results, is_stock

OURS, STOCK, ONE_CHANNEL = "#0072B2", "#999999", "#D55E00"  # distinct in grey and to the colour-blind


def save_all(results: Results, folder: Path) -> None:
    """Each figure whose runs exist."""
    if results.where(selected=True).records:
        headline(results.where(selected=True, labels=0.1, recipe="")).savefig(folder / "results.png", dpi=150)
    at = results.where(recipe="", seed=0)
    # one curve of nnU-Net for each input: the headline's
    at = Results([record for record in at.records if record["planner"] != STOCK_PLANNERS[1]])
    curves = {
        "labels": (at.where(arrangement="registered"), "labels", "labelled share of 72 subjects"),
        "shift_mm": (at.where(arrangement="misaligned", labels=0.1, channels="both"), "shift_mm", "shift (mm)"),
    }
    for name, (shown, along, label) in curves.items():
        if len(shown.values_of(along)) > 1:
            curve(shown, along, label).savefig(folder / f"results_{name}.png", dpi=150)


def headline(results: Results) -> Figure:
    """Dice of ours and of the better stock model for each arrangement and input; a dot is a seed."""
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(ARRANGEMENTS), sharey=True)
    for axis, arrangement in zip(axes, ARRANGEMENTS, strict=True):
        at = results.where(arrangement=arrangement)
        for place, given in enumerate(LGG.inputs):
            ours = at.where(stock=False, test_input=given).values("dice")
            for side, color, name, values in (
                (-0.2, STOCK, "nnU-Net, the better of two and one channels", at.better_stock(given, "dice")),
                (0.2, OURS, "nnunet_cmc", ours),
            ):
                seeds = list(values.values())
                if seeds:
                    axis.bar(place + side, np.mean(seeds), 0.38, color=color, label=name if place == 0 else None)
                    axis.plot(np.full(len(seeds), place + side), seeds, "k.", markersize=4)
        axis.set_xticks(
            range(len(LGG.inputs)), [given if given == "both" else f"{given}\nalone" for given in LGG.inputs]
        )
        axis.set_title(arrangement)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dice of 20 test subjects (%)")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False)
    return figure


def curve(results: Results, along: str, label: str) -> Figure:
    """Dice of every system along a condition, a panel for each input; a system with one point is left out."""
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    axes = figure.subplots(1, len(LGG.inputs), sharey=True)
    lines = {}
    for axis, given in zip(axes, LGG.inputs, strict=True):
        lines |= _curves(axis, results.where(test_input=given), along)
        axis.set(title=given if given == "both" else f"{given} alone", xlabel=label)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dice of 20 test subjects (%)")
    figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=len(lines), frameon=False)
    return figure


def _curves(axis: Axes, results: Results, along: str) -> dict[str, Line2D]:
    """Draw them; what is drawn, by name."""
    lines = {}
    for system in results.systems().values():
        first = system.records[0]
        if first["channels"] != "both":
            name, style = "nnU-Net, this sequence alone", {"color": ONE_CHANNEL, "linestyle": "--"}
        elif is_stock(first):
            name, style = "nnU-Net, both sequences", {"color": STOCK}
        else:
            name, style = "nnunet_cmc", {"color": OURS}
        points = [(value, system.where(**{along: value}).records[0]["dice"]) for value in system.values_of(along)]
        if len(points) > 1:
            lines[name] = axis.plot(*zip(*points, strict=True), marker="o", **style)[0]
    return lines
