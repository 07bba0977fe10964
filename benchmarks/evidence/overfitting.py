"""What keeps few labelled scans from being learned by heart: the second sequence alone, on our network, step by step.

    python benchmarks/evidence/overfitting.py --data FOLDER --work FOLDER [--profile longer] [--seed 0] [--jobs 2]

No unlabelled scans and no loss between modalities: this is nnU-Net's task. Prints the Dice of the validation subjects.
Give the same command again after an interruption.
"""

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import distribution
from pathlib import Path

from experiment import Bench
from sources import LGG
from systems import PROFILES, Run
from table import markdown

from nnunet_cmc.registration.classes import CLASSES
from nnunet_cmc.trainers.ablations import CMCTrainerNoCAC, CMCTrainerNoCSC, CMCTrainerOnlyModality1
from nnunet_cmc.trainers.deep_supervision import CMCTrainerDeepSupervision

PLANNER, INPUT = "CMCPlannerResEnc", LGG.modalities[1]


class Alone(CMCTrainerNoCSC, CMCTrainerNoCAC, CMCTrainerOnlyModality1, CMCTrainerDeepSupervision):
    """Mirrored left to right, Dice over the batch, AdamW at the rate of the short runs."""

    rate = 4e-3

    def configure_optimizers(self):
        self.initial_lr = self.rate
        return super().configure_optimizers()

    def get_streams(self):
        labeled, _, val = super().get_streams()
        return labeled, None, val


class Mirrored(Alone):
    """Mirrored along every axis."""

    mirrored_axes = (0, 1, 2)


class DiceBySample(Mirrored):
    """Mirrored along every axis, Dice of every sample by itself."""

    batch_dice = False


class Slower(DiceBySample):
    """Mirrored along every axis, Dice of every sample by itself, AdamW at the planner's rate."""

    rate = 1e-3


COMMANDS = ("nnUNetv2_train", "nnUNetv2_predict")  # that ask for a trainer by its name
STEPS = (Alone, Mirrored, DiceBySample, Slower)


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
    runs = [Run("registered", step.__name__, PLANNER, seed=args.seed) for step in STEPS]
    bench = TrainersOfThisFile(args.data, args.work, PROFILES[args.profile], LGG, runs[0].shift)
    bench.make_scans()
    bench.prepare(runs[0])

    def dice(run: Run) -> float:
        return bench.judge(run, INPUT, bench.train(run))["validation_dice"]

    with ThreadPoolExecutor(args.jobs) as pool:
        found = list(pool.map(dice, runs))
    print(markdown((f"{INPUT} alone", "validation Dice"),
                   [[step.__doc__, f"{value:.1f}"] for step, value in zip(STEPS, found, strict=True)]))  # fmt: skip


def command(name: str) -> None:
    """nnU-Net's command of this name, which knows the trainers of this file."""
    CLASSES.update({step.__name__: "overfitting" for step in STEPS})
    (entry,) = distribution("nnunetv2").entry_points.select(name=name)
    sys.exit(entry.load()())


if __name__ == "__main__":
    if sys.argv[1:] and sys.argv[1] in COMMANDS:
        command(sys.argv.pop(1))
    else:
        main()
