"""What keeps few labelled scans from being learned by heart: the second sequence alone, on our network, step by step.

    python benchmarks/evidence/overfitting.py --data FOLDER --work FOLDER [--profile longer] [--seed 0] [--jobs 2]

No unlabelled scans and no loss between modalities: this is nnU-Net's task. Prints the Dice of the validation subjects.
Give the same command again after an interruption.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from importlib.metadata import distribution
from pathlib import Path

from experiment import Bench
from sources import LGG
from systems import OURS, PROFILES, Run
from table import markdown

from nnunet_cmc.networks.changes import ShowOnly, SuperviseDeep
from nnunet_cmc.trainers import registry
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.comparison.budget import Budget
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.trainers.terms import Supervised, Term

INPUT = LGG.modalities[1]
ALONE = Recipe(
    "mirrored left to right, Dice as planned, AdamW at 4e-3",
    (Term(Supervised),),
    (SuperviseDeep(), ShowOnly(1)),
)
MIRRORED = replace(ALONE, purpose="mirrored along every axis", mirrored_axes=(0, 1, 2))
BY_SAMPLE = replace(MIRRORED, purpose="and Dice of every sample by itself", batch_dice=False)
SLOWER = replace(BY_SAMPLE, purpose="and AdamW at 1e-3")
FAST, SLOW = 4e-3, 1e-3


class WithoutUnlabeled(Budget, CMCTrainer):
    """Draws labelled scans alone, and learns at a rate of its own."""

    rate = FAST

    def configure_optimizers(self):
        self.initial_lr = self.rate
        return super().configure_optimizers()

    def get_samplers(self):
        labeled, _, val = super().get_samplers()
        return labeled, None, val


STEPS = {
    f"CMCTrainer{name}_cmcbudget": (recipe, rate)
    for name, recipe, rate in (
        ("Alone", ALONE, FAST),
        ("Mirrored", MIRRORED, FAST),
        ("DiceBySample", BY_SAMPLE, FAST),
        ("Slower", SLOWER, SLOW),
    )
}
COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict")  # that ask for a trainer by its name


class TrainersOfThisFile(Bench):
    """Runs commands through this file, where they find its trainers."""

    def program(self, name: str) -> list[str]:
        return [sys.executable, __file__, name] if name in COMMANDS else super().program(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--profile", choices=PROFILES, default="longer")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="runs at the same time (%(default)s)")
    args = parser.parse_args()
    runs = [Run("registered", name.removesuffix("_cmcbudget"), OURS, seed=args.seed) for name in STEPS]
    bench = TrainersOfThisFile(args.data, args.work, PROFILES[args.profile], LGG, runs[0].shift)
    bench.make_scans()
    bench.prepare(runs[0])

    def dice(run: Run) -> float:
        return bench.judge(run, INPUT, bench.train(run))["validation_dice"]

    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(dice, runs))
    rows = [[recipe.purpose, f"{value:.1f}"] for (recipe, _), value in zip(STEPS.values(), found, strict=True)]
    print(markdown((f"{INPUT} alone", "validation Dice"), rows))


def command(name: str) -> None:
    """nnU-Net's command of this name, which knows the trainers of this file."""
    known = registry.trainer_class

    def trainer_class(asked: str) -> type:
        if asked not in STEPS:
            return known(asked)
        recipe, rate = STEPS[asked]
        return type(asked, (WithoutUnlabeled,), {"recipe": recipe, "rate": rate})

    registry.trainer_class = trainer_class
    (entry,) = distribution("nnunetv2").entry_points.select(name=name)
    sys.exit(entry.load()())


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        command(sys.argv.pop(1))
    else:
        main()
