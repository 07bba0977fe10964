"""What is compared: systems, budgets fixed before the first run, and the runs that each table needs."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from arrangements import ARRANGEMENTS
from sources import AMOS, LGG, Source

from nnunet_cmc.utils.files import write_json

STOCK_TRAINER = "nnUNetTrainer"
OURS = "CMCPlannerNNUNet"
Candidate = tuple[str, str]
# Of ours, for the headline: trainer and planner ("" is the profile's). The best of each planner, by validation Dice of
# seed 0, are the finalists; the one that is best over three seeds is taken.
CANDIDATES = (("CMCTrainer", OURS), ("CMCTrainer_contrastTeacher", OURS), ("CMCTrainerPaper", ""))
# What the unlabelled scans are worth to it.
ABLATIONS = ("CMCTrainer_noCSC", "CMCTrainer_noCAC", "CMCTrainer_supervised")
LADDER = ("CMCTrainerPaper_baseline", "CMCTrainerPaper_encoders", "CMCTrainerPaper_noCAC", "CMCTrainerPaper")


@dataclass(frozen=True)
class Reduced:
    """A network of nnU-Net's plan that a CPU trains in minutes: nnU-Net's own and ours have the same width and batch.

    Attributes:
        channels: of the first stage, in place of nnU-Net's 32; all others scale with it.
        batch: of both.
    """

    channels: int
    batch: int = 2


@dataclass(frozen=True)
class Profile:
    """What a machine affords. Every row of every table trains equally many iterations.

    Attributes:
        spacing: of all plans, in mm; None leaves it to the planners.
        reduced: how networks of nnU-Net's plan are made smaller; None leaves them as planned.
        transductive: of the unlabelled training subjects, how many are predicted.
        planner: of ours where a system names none: on a CPU, SAM-Med3D's structure from random weights.
        results: under docs/, where its records go.
        candidates: systems of ours, of which the headline's is chosen by validation Dice.
        choosing: the arrangements of scans that choose.
        choosing_seeds: so many seeds of the best candidate of each planner choose between these.
    """

    name: str
    device: str
    epochs: int
    iterations: int
    spacing: float | None
    reduced: "Reduced | None"
    transductive: int
    planner: str
    results: str = "results.json"
    candidates: tuple[Candidate, ...] = CANDIDATES
    choosing: tuple[str, ...] = ("registered",)
    choosing_seeds: int = 3

    @property
    def total_iterations(self) -> int:
        return self.epochs * self.iterations


CPU = Profile("cpu", "cpu", 10, 30, 5.0, Reduced(16), 20, "CMCPlannerTiny")
PROFILES = {
    "cpu": CPU,
    "gpu": Profile("gpu", "cuda", 100, 250, None, None, 64, "CMCPlanner"),
    # half an hour of one GPU: a headline at nnU-Net's full width
    "short": Profile("short", "cuda", 20, 40, 3.5, Reduced(32), 8, "CMCPlanner", "results_gpu.json", CANDIDATES[:2],
                     ("registered", "unpaired"), 1),
    # three times as long: another budget, so another file, and one system, nothing to choose from
    "longer": replace(CPU, name="longer", epochs=30, results="results_longer.json", candidates=CANDIDATES[:1],
                      choosing_seeds=1),
    # whether the scripts work, in minutes: no numbers
    "smoke": Profile("smoke", "cpu", 1, 2, 12.0, Reduced(4), 2, "CMCPlannerTiny",
                     "results_smoke.json"),
}  # fmt: skip
PLANS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "CMCPlanner": "CMCPlans",
    OURS: "CMCNNUNetPlans",
    "CMCPlannerTiny": "CMCTinyPlans",
}
RECIPES = ("", "pseudo-labels once", "pseudo-labels twice")
STOCK_PLANNERS = ("ExperimentPlanner", "nnUNetPlannerResEncM")


@dataclass(frozen=True)
class Run:
    """One training, and the prediction of the test subjects with every input that its model takes.

    Attributes:
        trainer: without ``_cmcbudget``.
        channels: what it is trained on: "both" or one modality.
        labels: fraction of the labels.
        shift: of the misaligned arrangement, in mm.
        recipe: "", or how often pseudo-labels of registered scans were made: "pseudo-labels once", "... twice".
    """

    arrangement: str
    trainer: str
    planner: str
    channels: str = "both"
    labels: float = 0.1
    seed: int = 0
    shift: float = 5.0
    recipe: str = ""
    source: Source = LGG

    @property
    def stock(self) -> bool:
        return self.trainer == STOCK_TRAINER

    @property
    def teacher(self) -> "Run | None":
        """Whose predictions this run is trained on."""
        if not self.recipe:
            return None
        return replace(self, recipe=RECIPES[RECIPES.index(self.recipe) - 1])

    @property
    def dataset(self) -> str:
        if self.recipe:
            return f"pseudo{RECIPES.index(self.recipe)}_{self.channels}"
        if self.channels == self.source.modalities[1] and self.arrangement == "misaligned":
            return self.source.moved
        if self.channels != "both":
            return self.channels
        return f"stock_{self.arrangement}" if self.stock else self.arrangement

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.source.inputs) if self.channels == "both" else (self.channels,)

    @property
    def key(self) -> str:
        """A name for its files."""
        labels = f"{round(100 * self.labels)}percent"
        shift = f"{self.shift:g}mm" if self.arrangement == "misaligned" else ""
        name = "" if self.source == LGG else self.source.name
        parts = (name, self.arrangement, shift, self.trainer, self.planner, self.channels, labels, self.recipe)
        return "-".join(filter(None, (*parts, f"seed{self.seed}")))


def stock(arrangement: str, planner: str = "ExperimentPlanner", source: Source = LGG, **other) -> list[Run]:
    """nnU-Net on both modalities, and on each alone."""
    trained_on = ("both", *source.modalities)
    return [Run(arrangement, STOCK_TRAINER, planner, channels, source=source, **other) for channels in trained_on]


def table_runs(table: str, profile: Profile, seeds: int, chosen: Sequence[Candidate] = ()) -> list[Run]:
    """The runs of a table.

    Args:
        table: one of :data:`TABLES`.
        seeds: of the headline.
        chosen: the :func:`finalists`, of which tables other than that of this name take the first.
    """

    def ours(candidate: Candidate, arrangement: str = "registered", **other) -> Run:
        trainer, planner = candidate
        return Run(arrangement, trainer, planner or profile.planner, **other)

    if table == "candidates":
        return [ours(candidate, arrangement) for arrangement in profile.choosing for candidate in profile.candidates]
    if table == "finalists":
        return [ours(candidate, arrangement, seed=seed) for seed in range(profile.choosing_seeds)
                for arrangement in profile.choosing for candidate in chosen]  # fmt: skip
    if table == "headline":
        return [
            run
            for seed in range(seeds)
            for arrangement in ARRANGEMENTS
            for run in (ours(chosen[0], arrangement, seed=seed), *stock(arrangement, seed=seed))
        ]
    if table == "ladder":
        return [ours((trainer, planner)) for planner in ("", OURS) for trainer in LADDER]
    if table == "others":
        return [
            *(ours(candidate) for candidate in (("CMCTrainerAsPrinted", ""), *profile.candidates)),
            *stock("registered", "nnUNetPlannerResEncM"),
            *(replace(run, recipe=recipe) for recipe in RECIPES[1:] for run in stock("registered")),
        ]
    if table == "labels":
        return [
            *(run for labels in LGG.labeled if labels != 0.1
              for run in (ours(chosen[0], labels=labels), *stock("registered", labels=labels))),
            *stock("registered", "nnUNetPlannerResEncM", labels=1.0),
        ]  # fmt: skip
    if table == "unpaired":
        return [ours(candidate, "unpaired") for candidate in profile.candidates]
    if table == "ablations":
        return [ours((trainer, OURS), arrangement) for arrangement in ("registered", "unpaired")
                for trainer in ("CMCTrainer", *ABLATIONS)]  # fmt: skip
    if table == "amos":
        return [run for arrangement in ("registered", "unpaired")
                for run in (ours(chosen[0], arrangement, source=AMOS), *stock(arrangement, source=AMOS))]  # fmt: skip
    return [
        run
        for shift in (0.0, 2.5, 5.0, 10.0)
        for run in (ours(chosen[0], "misaligned", shift=shift), stock("misaligned", shift=shift)[0])
    ]


TABLES = ("candidates", "finalists", "headline", "unpaired", "ladder", "ablations", "others", "labels", "misalignment",
          "amos")  # fmt: skip


def finalists(records: Iterable[dict], profile: Profile) -> list[Candidate]:
    """The best candidate of each planner by validation Dice, the better one first.

    Raises:
        ValueError: a candidate has not been trained yet.
    """
    dice = validation_dice(records, profile)
    for (trainer, planner), by_seed in dice.items():
        if 0 not in by_seed:
            raise ValueError(
                f"There is no validation Dice of {trainer} with {planner or profile.planner}: run the table candidates."
            )
    best = [
        max(
            (candidate for candidate in profile.candidates if candidate[1] == planner),
            key=lambda candidate: dice[candidate][0],
        )
        for planner in dict.fromkeys(planner for _, planner in profile.candidates)
    ]
    return sorted(best, key=lambda candidate: -float(np.mean(list(dice[candidate].values()))))


def choose(records: Sequence[dict], profile: Profile) -> list[Candidate]:
    """The :func:`finalists`, all seeds of which must be there."""
    found = finalists(records, profile)
    for trainer, planner in found:
        if len(validation_dice(records, profile)[trainer, planner]) < profile.choosing_seeds:
            raise ValueError(f"{trainer} with {planner or profile.planner} lacks a seed: run the table finalists.")
    return found


def validation_dice(records: Iterable[dict], profile: Profile) -> dict[Candidate, dict[int, float]]:
    """Of each candidate and seed that chooses, the mean over the inputs and the arrangements that choose."""
    wanted = {"dataset": "lgg", "labels": 0.1, "profile": profile.name}
    found: dict[Candidate, dict[int, list[float]]] = {candidate: {} for candidate in profile.candidates}
    for record in records:
        planner = "" if record["planner"] == profile.planner else record["planner"]
        candidate = record["trainer"].removesuffix("_cmcbudget"), planner
        chooses = record["arrangement"] in profile.choosing and record["seed"] < profile.choosing_seeds
        if candidate in found and chooses and wanted.items() <= record.items():
            found[candidate].setdefault(record["seed"], []).append(record["validation_dice"])
    n_values = len(LGG.inputs) * len(profile.choosing)
    return {
        candidate: {seed: float(np.mean(values)) for seed, values in by_seed.items() if len(values) == n_values}
        for candidate, by_seed in found.items()
    }


def reduce_plans(file: Path, reduced: Reduced) -> None:
    """Make a stock network smaller in its plans; our planner takes the same sizes as arguments."""
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    sizes = configuration["architecture"]["arch_kwargs"]
    first = sizes["features_per_stage"][0]
    sizes["features_per_stage"] = [width * reduced.channels // first for width in sizes["features_per_stage"]]
    configuration["batch_size"] = reduced.batch
    write_json(file, plans)
