"""What is compared: systems, budgets fixed before the first run, and the runs that each table needs."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sources import AMOS, ARRANGEMENTS, LGG, Source

from nnunet_cmc.trainers.compared import COMPARED
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.utils.files import write_json

STOCK_TRAINER = "nnUNetTrainer"
DEFAULT = "CMCTrainer"
# From separate networks to the default, a part at a time: what they are is said in trainers/recipes.py.
PARTS = (
    "CMCTrainer_separate",
    "CMCTrainer_supervised",
    "CMCTrainer_teacherOnly",
    "CMCTrainer_contrastTeacher",
    "CMCTrainer_wholeScanLabelsOnly",
    "CMCTrainer_noCSC",
    "CMCTrainer_noCAC",
    DEFAULT,
)
SYSTEMS = ("CMCTrainerPaper", *COMPARED)
OURS = "CMCPlannerNNUNet"
PLANS = {"ExperimentPlanner": "nnUNetPlans", OURS: "CMCNNUNetPlans"}
# how often nnU-Net labelled the unlabelled scans, whole, and was trained anew on all
PSEUDO_LABELS = ("", "pseudo-labels once", "pseudo-labels twice")


@dataclass(frozen=True)
class Reduced:
    """A network of nnU-Net's plan whose size is given: nnU-Net's own and ours have the same width and batch.

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
        spacing: of all plans, in mm.
        reduced: the size of all networks.
        transductive: of the unlabelled training subjects, how many are predicted.
    """

    name: str
    device: str
    epochs: int
    iterations: int
    spacing: float
    reduced: Reduced
    transductive: int

    @property
    def total_iterations(self) -> int:
        return self.epochs * self.iterations


CPU = Profile("cpu", "cpu", 10, 30, 5.0, Reduced(16), 8)
LONGER = replace(CPU, name="longer", epochs=30)
GPU = Profile("gpu", "cuda", 30, 50, 3.5, Reduced(32), 8)
SMOKE = Profile("smoke", "cpu", 1, 2, 12.0, Reduced(4), 2)  # whether the scripts work, in minutes: no numbers
PROFILES = {profile.name: profile for profile in (CPU, LONGER, GPU, SMOKE)}


@dataclass(frozen=True)
class Run:
    """One training, and the prediction of the test subjects with every input that its model takes.

    Attributes:
        trainer: without ``_cmcbudget``.
        channels: what it is trained on: "both" or one modality.
        labels: fraction of the labels.
        shift: of the misaligned arrangement, in mm.
        recipe: one of :data:`PSEUDO_LABELS`.
    """

    arrangement: str
    trainer: str
    channels: str = "both"
    labels: float = 0.1
    seed: int = 0
    shift: float = 5.0
    recipe: str = ""
    source: Source = LGG
    profile: Profile = CPU

    @property
    def stock(self) -> bool:
        return self.trainer == STOCK_TRAINER

    @property
    def budgeted(self) -> str:
        """The trainer's name as nnU-Net is given it."""
        return f"{self.trainer}_cmcbudget"

    @property
    def planner(self) -> str:
        return "ExperimentPlanner" if self.stock else OURS

    @property
    def teacher(self) -> "Run | None":
        """Whose predictions this run is trained on."""
        if not self.recipe:
            return None
        return replace(self, recipe=PSEUDO_LABELS[PSEUDO_LABELS.index(self.recipe) - 1])

    @property
    def labels_alone(self) -> "Run":
        """The same without pseudo-labels."""
        return replace(self, recipe="")

    @property
    def trained_in(self) -> str:
        """The arrangement of its training: the first modality stays where it is when the second moves."""
        alone = self.channels == self.source.modalities[0]
        return "registered" if alone and self.arrangement == "misaligned" else self.arrangement

    @property
    def dataset(self) -> str:
        if self.recipe:
            return f"pseudo{PSEUDO_LABELS.index(self.recipe)}_{self.trained_in}_{self.channels}"
        if self.channels == self.source.modalities[1] and self.arrangement == "misaligned":
            return self.source.moved
        if self.channels != "both":
            return self.channels
        return f"stock_{self.arrangement}" if self.stock else self.arrangement

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(self.source.inputs) if self.channels == "both" else (self.channels,)

    @property
    def description(self) -> dict:
        """What its records say of it."""
        return {
            "dataset": self.source.name, "arrangement": self.arrangement,
            "shift_mm": self.shift if self.arrangement == "misaligned" else 0.0, "trainer": self.budgeted,
            "recipe": self.recipe, "planner": self.planner, "channels": self.channels, "labels": self.labels,
            "seed": self.seed, "profile": self.profile.name,
        }  # fmt: skip

    @property
    def descriptions(self) -> list[dict]:
        """The description of each of its records."""
        return [{**self.description, "test_input": given} for given in self.inputs]

    @property
    def key(self) -> str:
        """A name for its files."""
        labels = f"{round(100 * self.labels)}percent"
        shift = f"{self.shift:g}mm" if self.arrangement == "misaligned" else ""
        name = "" if self.source == LGG else self.source.name
        parts = (name, self.arrangement, shift, self.trainer, self.planner, self.channels, labels, self.recipe)
        return "-".join(filter(None, (*parts, f"seed{self.seed}")))


def needs_registered(trainer: str) -> bool:
    """Tell whether a trainer of ours refuses unpaired scans."""
    return trainer in RECIPES and any(term.loss.needs_registered for term in RECIPES[trainer].terms)


def stock(arrangement: str, source: Source = LGG, **other) -> list[Run]:
    """List nnU-Net on both modalities, and on each alone."""
    return [
        Run(arrangement, STOCK_TRAINER, channels, source=source, **other) for channels in ("both", *source.modalities)
    ]


def headline(seeds: int, profile: Profile) -> list[Run]:
    """List the default, nnU-Net, and nnU-Net after two rounds of pseudo-labels."""
    return [
        run
        for seed in range(seeds)
        for arrangement in ARRANGEMENTS
        for given in ({"seed": seed, "profile": profile},)
        for run in (
            Run(arrangement, DEFAULT, **given),
            *stock(arrangement, **given),
            *stock(arrangement, recipe=PSEUDO_LABELS[-1], **given),
        )
    ]


def by_trainer(trainers: Sequence[str], seeds: int = 3) -> list[Run]:
    """List these trainers of ours on registered and unpaired scans, where they take them."""
    return [
        Run(arrangement, trainer, seed=seed)
        for seed in range(seeds)
        for arrangement in ("registered", "unpaired")
        for trainer in trainers
        if arrangement == "registered" or not needs_registered(trainer)
    ]


TABLES = {
    "headline": headline(LGG.folds, CPU),
    "parts": by_trainer(PARTS),
    "systems": by_trainer((DEFAULT, *SYSTEMS)),
    "labels": [
        run
        for labels in LGG.labeled
        for run in (Run("registered", DEFAULT, labels=labels), *stock("registered", labels=labels))
    ],
    "misalignment": [
        Run("misaligned", trainer, shift=shift)
        for shift in (0.0, 2.5, 5.0, 10.0)
        for trainer in (DEFAULT, STOCK_TRAINER)
    ],
    "amos": [
        run
        for arrangement in ("registered", "unpaired")
        for run in (Run(arrangement, DEFAULT, source=AMOS), *stock(arrangement, AMOS))
    ],
    "longer": headline(3, LONGER),
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
