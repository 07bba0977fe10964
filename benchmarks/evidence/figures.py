"""The figure of docs/results.md, of records alone."""

import numpy as np
from matplotlib.figure import Figure
from sources import LGG
from systems import DEFAULT, PSEUDO_LABELS, Run, stock
from table import Systems, arrangements, better_stock, profile_of

PLAIN, TAUGHT, OURS = "#999999", "#E69F00", "#0072B2"  # distinct in grey and to the colour-blind


def headline(systems: Systems) -> Figure:
    """Draw the Dice of the default and of the better nnU-Net for each arrangement and input; a dot is a seed."""
    profile = profile_of(systems)
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    shown = arrangements(systems)
    axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    drawn = {}
    for axis, arrangement in zip(axes, shown, strict=True):
        for place, given in enumerate(LGG.inputs):
            bars = {}
            for name, recipe, color in (
                ("nnU-Net, the better of two and one channels", PSEUDO_LABELS[0], PLAIN),
                ("the same with pseudo-labels", PSEUDO_LABELS[-1], TAUGHT),
            ):
                if set(stock(arrangement, recipe=recipe, profile=profile)) <= systems.keys():
                    bars[name] = color, better_stock(systems, arrangement, given, recipe)
            ours = systems[Run(arrangement, DEFAULT, profile=profile)]
            bars[f"nnunet_cmc, {DEFAULT}"] = OURS, ours.by_subject(given)
            for number, (name, (color, dice)) in enumerate(bars.items()):
                x, seeds = place + 0.27 * (number - 1), dice.mean(1)
                drawn[name] = axis.bar(x, seeds.mean(), 0.25, color=color)
                axis.plot(np.full(len(seeds), x), seeds, "k.", markersize=4)
        axis.set_xticks(
            range(len(LGG.inputs)), [given if given == "both" else f"{given}\nalone" for given in LGG.inputs]
        )
        axis.set_title(arrangement)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_ylabel("Dice of test subjects (%)")
    figure.legend(drawn.values(), drawn.keys(), loc="outside lower center", ncols=len(drawn), frameon=False)
    return figure
