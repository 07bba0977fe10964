"""Records to look things up in, and tables of them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from sources import ARRANGEMENTS, LGG, Source
from systems import DEFAULT, Profile, Run, stock

NOT_RUN = "*Not run yet.*"  # in place of a table without a row


@dataclass(frozen=True)
class Results:
    """Some of the records of docs/results.json."""

    records: list[dict]

    def where(self, **wanted) -> "Results":
        """Select those with these values."""
        return Results([record for record in self.records if wanted.items() <= record.items()])

    def of(self, runs: Sequence[Run]) -> "Results":
        """Select those of these runs."""
        names = [*runs[0].description]
        wanted = {tuple(run.description.values()) for run in runs}
        return Results([record for record in self.records if tuple(record[name] for name in names) in wanted])

    def values_of(self, name: str) -> list:
        """Return the distinct values, sorted."""
        return sorted({record[name] for record in self.records})

    @property
    def seeds(self) -> list[int]:
        return self.values_of("seed")

    def by_subject(self, given: str) -> np.ndarray:
        """Return Dice ``(seeds, subjects)`` in percent of one system for one input."""
        by_seed = {record["seed"]: record["dice_by_subject"] for record in self.where(test_input=given).records}
        return np.array([by_seed[seed] for seed in sorted(by_seed)])

    def mean(self, given: str, metric: str = "dice") -> float | None:
        """Average over seeds, for one input; None where nothing was measured."""
        found = [record[metric] for record in self.where(test_input=given).records if record[metric] is not None]
        return float(np.mean(found)) if found else None

    def mean_of_inputs(self, metric: str = "dice", source: Source = LGG) -> str:
        means = [self.mean(given, metric) for given in source.inputs]
        return "" if None in means else f"{np.mean(means):.1f}"


Systems = dict[Run, Results]


def by_system(results: Results, runs: Iterable[Run]) -> Systems:
    """Group the records of each system of a table under its run of seed 0, in the table's order.

    Of the systems that were run on an arrangement, only the seeds that all of them have are left: means of different
    subjects do not compare.
    """
    grouped: dict[Run, list[Run]] = {}
    for run in runs:
        grouped.setdefault(replace(run, seed=0), []).append(run)
    found = {system: results.of(its) for system, its in grouped.items()}
    found = {system: its for system, its in found.items() if its.records}
    seeds: dict[str, set[int]] = {}
    for system, its in found.items():
        seeds[system.arrangement] = seeds.get(system.arrangement, {*its.seeds}) & {*its.seeds}
    return {
        system: Results([record for record in its.records if record["seed"] in seeds[system.arrangement]])
        for system, its in found.items()
    }


def profile_of(systems: Systems) -> Profile:
    """Return the profile of all of them."""
    (profile,) = {run.profile for run in systems}
    return profile


def arrangements(systems: Systems, recipe: str = "") -> list[str]:
    """List those in which the default and all of nnU-Net's models of a recipe, at first without any, were run."""
    return [
        arrangement
        for arrangement in (ARRANGEMENTS if systems else ())
        for given in ({"profile": profile_of(systems)},)
        if {Run(arrangement, DEFAULT, **given), *stock(arrangement, recipe=recipe, **given)} <= systems.keys()
    ]


def better_stock(systems: Systems, arrangement: str, given: str, recipe: str = "") -> np.ndarray:
    """Return Dice ``(seeds, subjects)`` in percent of that of nnU-Net's models which is better in the mean.

    Args:
        given: input. With both modalities, the one-channel model is that of the first, which looks at it alone.
        recipe: one of :data:`systems.PSEUDO_LABELS`.
    """
    alone = LGG.modalities[0] if given == "both" else given
    models = stock(arrangement, recipe=recipe, profile=profile_of(systems))
    asked = {"both": given, alone: alone}
    dice = [systems[run].by_subject(asked[run.channels]) for run in models if run.channels in asked]
    return max(dice, key=np.mean)


def name_of(run: Run) -> str:
    """Call the system as a reader of a table would."""
    if not run.stock:
        return run.trainer
    trained = "both" if run.channels == "both" else "each alone"
    return ", ".join(filter(None, (f"nnU-Net, {trained}", run.recipe)))


def mean_and_spread(results: Results, metric: str = "dice") -> str:
    """Format mean and, of several, standard deviation over the seeds; empty where nothing was measured."""
    found = [record[metric] for record in results.records if record[metric] is not None]
    if not found:
        return ""
    spread = f" ± {np.std(found, ddof=1):.1f}" if len(found) > 1 else ""
    return f"{np.mean(found):.1f}{spread}"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Format a table, or :data:`NOT_RUN` where there is no row."""
    if not rows:
        return NOT_RUN
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
