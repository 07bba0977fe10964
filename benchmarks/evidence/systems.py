"""What is compared: systems, budgets fixed before the first run, and the runs that each table needs."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from arrangements import ARRANGEMENTS
from sources import AMOS, LGG, Source

STOCK_TRAINER = "nnUNetTrainer"
CANDIDATES = (  # of ours, for the headline; the one with the best validation Dice is taken
    "CMCTrainer",
    "CMCTrainerCorrectedSchedules",
    "CMCTrainerOneSided",
    "MeanTeacherTrainer",
    "CMCTrainerMeanTeacher",
)
LADDER = ("CMCTrainerBaseline", "CMCTrainerModalityEncoders", "CMCTrainerNoCAC", "CMCTrainer")


@dataclass(frozen=True)
class Profile:
    """What a machine affords. Every row of every table trains equally many iterations.

    Attributes:
        spacing: of all plans, in mm; None leaves it to the planners.
        width: stock and residual networks have this share of their usual channels (1 or less).
        patch: edge in voxels that plans with a residual encoder get, and batch their batch size; None leaves both.
        transductive: of the unlabelled training subjects, how many are predicted.
        planner: of ours, for SAM-Med3D's structure from random weights.
    """

    name: str
    device: str
    epochs: int
    iterations: int
    spacing: float | None
    width: float
    patch: int | None
    batch: int | None
    transductive: int
    planner: str

    @property
    def total_iterations(self) -> int:
        return self.epochs * self.iterations


PROFILES = {
    "cpu": Profile("cpu", "cpu", 10, 30, 5.0, 0.5, 48, 2, 20, "CMCPlannerTiny"),
    "gpu": Profile("gpu", "cuda", 100, 250, None, 1.0, None, None, 64, "CMCPlanner"),
    # whether the scripts work, in minutes: no numbers
    "smoke": Profile("smoke", "cpu", 1, 2, 12.0, 0.125, 48, 2, 2, "CMCPlannerTiny"),
}
PLANS = {
    "ExperimentPlanner": "nnUNetPlans",
    "nnUNetPlannerResEncM": "nnUNetResEncUNetMPlans",
    "CMCPlanner": "CMCPlans",
    "CMCPlannerResEnc": "CMCResEncPlans",
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


def table_runs(table: str, profile: Profile, seeds: int, chosen: str) -> list[Run]:
    """The runs of a table.

    Args:
        table: one of :data:`TABLES`.
        seeds: of the headline.
        chosen: the trainer of ours that :func:`choose` names.
    """

    def ours(trainer: str, arrangement: str = "registered", planner: str = profile.planner, **other) -> Run:
        return Run(arrangement, trainer, planner, **other)

    if table == "candidates":
        return [ours(trainer) for trainer in CANDIDATES]
    if table == "headline":
        return [
            run
            for seed in range(seeds)
            for arrangement in ARRANGEMENTS
            for run in (ours(chosen, arrangement, seed=seed), *stock(arrangement, seed=seed))
        ]
    if table == "ladder":
        return [ours(trainer, planner=planner) for planner in (profile.planner, "CMCPlannerResEnc")
                for trainer in LADDER]  # fmt: skip
    if table == "others":
        return [
            *(ours(trainer) for trainer in ("CMCTrainerAsPrinted", *CANDIDATES)),
            *stock("registered", "nnUNetPlannerResEncM"),
            *(replace(run, recipe=recipe) for recipe in RECIPES[1:] for run in stock("registered")),
        ]
    if table == "labels":
        return [run for labels in LGG.labeled if labels != 0.1
                for run in (ours(chosen, labels=labels), *stock("registered", labels=labels))]  # fmt: skip
    if table == "amos":
        return [run for arrangement in ("registered", "unpaired")
                for run in (ours(chosen, arrangement, source=AMOS), *stock(arrangement, source=AMOS))]  # fmt: skip
    return [
        run
        for shift in (0.0, 2.5, 5.0, 10.0)
        for run in (ours(chosen, "misaligned", shift=shift), stock("misaligned", shift=shift)[0])
    ]


TABLES = ("candidates", "headline", "ladder", "others", "labels", "misalignment", "amos")


def choose(records: Iterable[dict]) -> str:
    """The candidate with the best mean validation Dice over the three inputs, of seed 0 on registered scans.

    Raises:
        ValueError: a candidate has not been trained yet.
    """
    dice: dict[str, list[float]] = {trainer: [] for trainer in CANDIDATES}
    for record in records:
        trainer = record["trainer"].removesuffix("_cmcbudget")
        wanted = {"dataset": "lgg", "arrangement": "registered", "labels": 0.1, "seed": 0}
        if trainer in dice and wanted.items() <= record.items() and record["planner"] != "CMCPlannerResEnc":
            dice[trainer].append(record["validation_dice"])
    for trainer, values in dice.items():
        if len(values) != 3:
            raise ValueError(f"There is no validation Dice of {trainer}: run the table candidates first.")
    return max(dice, key=lambda trainer: sum(dice[trainer]))


def reduce_plans(file: Path, profile: Profile) -> None:
    """Narrow a stock or residual network in its plans, so that a CPU can train it."""
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    arguments = configuration["architecture"]["arch_kwargs"]
    for part in (arguments, arguments.get("encoder_kwargs", {})):
        if "features_per_stage" in part:
            part["features_per_stage"] = [max(4, int(n * profile.width)) for n in part["features_per_stage"]]
    if "decoder_channels" in arguments:
        arguments["decoder_channels"] = [max(4, int(n * profile.width)) for n in arguments["decoder_channels"]]
        configuration["patch_size"] = arguments["patch_size"] = [profile.patch] * 3
    configuration["batch_size"] = profile.batch
    file.write_text(json.dumps(plans, indent=2) + "\n")
