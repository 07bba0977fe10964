"""The figure of docs/results.md, of records alone."""

from itertools import product

import numpy as np
from matplotlib.figure import Figure
from sources import LGG
from systems import DEFAULT, PSEUDO_LABELS, Run, stock
from table import Systems, arrangements, better_stock, profile_of

# name, recipe of nnU-Net or None for ours, and a colour: distinct in grey and to the colour-blind
SHOWN = (
    ("nnU-Net, the better of two and one channels", PSEUDO_LABELS[0], "#999999"),
    ("the same with pseudo-labels", PSEUDO_LABELS[-1], "#E69F00"),
    (f"nnunet_cmc, {DEFAULT}", None, "#0072B2"),
)
STEP, WIDTH = 0.27, 0.25  # from bar to bar, and of a bar


def headline(systems: Systems) -> Figure:
    """Draw the Dice of the default and of the better nnU-Net for each arrangement and input; a dot is a seed."""
    where = arrangements(systems)
    shown = [one for one in SHOWN if any(_was_run(systems, arrangement, one[1]) for arrangement in where)]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, len(where), sharey=True, squeeze=False)[0]
    drawn = {}
    for axis, arrangement in zip(axes, where, strict=True):
        for (place, given), (number, (name, recipe, color)) in product(enumerate(LGG.inputs), enumerate(shown)):
            x = place + STEP * (number - (len(shown) - 1) / 2)
            if not _was_run(systems, arrangement, recipe):
                axis.text(x, 1, "not run", rotation=90, ha="center", va="bottom", fontsize="small", color=color)
                continue
            seeds = _dice(systems, arrangement, given, recipe).mean(1)
            drawn[name] = axis.bar(x, seeds.mean(), WIDTH, color=color)
            axis.plot(np.full(len(seeds), x), seeds, "k.", markersize=4)
        axis.set_xticks(
            range(len(LGG.inputs)), [given if given == "both" else f"{given}\nalone" for given in LGG.inputs]
        )
        axis.set_title(arrangement)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dice of test subjects (%)")
    names = [name for name, *_ in shown]
    figure.legend([drawn[name] for name in names], names, loc="outside lower center", ncols=len(names), frameon=False)
    return figure


def _was_run(systems: Systems, arrangement: str, recipe: str | None) -> bool:
    return recipe is None or set(stock(arrangement, recipe=recipe, profile=profile_of(systems))) <= systems.keys()


def _dice(systems: Systems, arrangement: str, given: str, recipe: str | None) -> np.ndarray:
    if recipe is None:
        return systems[Run(arrangement, DEFAULT, profile=profile_of(systems))].by_subject(given)
    return better_stock(systems, arrangement, given, recipe)
