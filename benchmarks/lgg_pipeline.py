"""Every stock command on real two-sequence scans: a few subjects, a short training, on a CPU.

    python benchmarks/lgg_pipeline.py --data FOLDER --output FOLDER [--layout registered|unpaired]

FOLDER of the data holds ``images_FLAIR``, ``images_T1post``, ``labels`` and ``split.json`` (brain MRI with low-grade
glioma). Of its ``train_order``, 4 subjects are labelled, 8 unlabelled and 2 for validation; 4 subjects are for testing.
Registered: both sequences of each subject on one grid. Unpaired: every training subject keeps one sequence, in turns.
The training runs twice, the second time with garbage in place of the labels of the unlabelled subjects: the weights
must be the same to the bit, and the training loss must fall. Prints a table of times and Dice, and writes it to
``report.json`` in the output.
"""

import argparse
import csv
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import blosc2
import numpy as np
import SimpleITK as sitk
import torch
from batchgenerators.utilities.file_and_folder_operations import load_pickle, write_pickle

from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.utils.files import write_json

DATASET = "Dataset950_LGG"
SEQUENCES = ("FLAIR", "T1post")
INPUTS = {"both": (0, 1), "FLAIR": (0,), "T1post": (1,)}
PLANS = "CMCTinyPlans"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--layout", choices=("registered", "unpaired"), default="registered")
    parser.add_argument("--trainer", default="CMCTrainerPaper", help="name of a trainer of this package")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--iterations", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    run = Run(args)
    run.convert()
    run.command("plan_and_preprocess", "nnUNetv2_plan_and_preprocess", "-d", "950", "-pl", "CMCPlannerTiny",
                "-fpe", "CMCFingerprintExtractor", "-c", "3d_fullres", "-npfp", "1", "-np", "1")  # fmt: skip
    run.train("train")
    report = run.evaluate()
    trained = run.weights()
    run.poison_hidden_labels()
    run.train("train_with_garbage")
    again = run.weights()
    report["weights_unchanged_by_garbage"] = all(trained[name].equal(again[name]) for name in trained)
    report["seconds"] = run.seconds
    write_json(args.output / "report.json", report)
    print((args.output / "report.json").read_text())
    require(report)


def require(report: dict) -> None:
    """End the program with an exit code other than 0 if the run does not show what it is to show."""
    if not report["weights_unchanged_by_garbage"]:
        sys.exit("The hidden labels changed the weights.")
    first, last = report["training_loss_first_and_last_epoch"]
    if not last < first:  # or either is NaN
        sys.exit(f"The training loss does not fall: {first:.3g} in the first epoch, {last:.3g} in the last.")


class Run:
    def __init__(self, args: argparse.Namespace):
        self.args = args
        self.trainer = f"{args.trainer}_cmcbudget"
        self.seconds: dict[str, float] = {}
        self.environment = {
            **os.environ,
            **{f"nnUNet_{part}": str(args.output / part) for part in ("raw", "preprocessed", "results")},
            **{"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            "NNUNET_CMC_SEED": str(args.seed),
            "NNUNET_CMC_EPOCHS": str(args.epochs),
            "NNUNET_CMC_ITERATIONS": str(args.iterations),
        }
        self.raw, self.preprocessed, self.results = (
            args.output / part / DATASET for part in ("raw", "preprocessed", "results")
        )
        split = json.loads((args.data / "split.json").read_text())
        self.train_subjects, self.test_subjects = split["train_order"][:14], split["test"][:4]

    def convert(self) -> None:
        """Make raw data with `nnunet_cmc convert folders`, and a fold that hides eight labels."""
        sources = self.args.output / "scans"
        for number, subject in enumerate(self.train_subjects + self.test_subjects):
            test = subject in self.test_subjects
            shown = SEQUENCES if test or self.args.layout == "registered" else (SEQUENCES[number % 2],)
            for sequence in shown:
                self._copy(f"images_{sequence}", subject, sources / ("test" if test else "train") / sequence)
                if not test and self.args.layout == "unpaired":
                    self._copy("labels", subject, sources / "train" / f"labels_{sequence}")
            if not test and self.args.layout == "registered":
                self._copy("labels", subject, sources / "train" / "labels")
        train = sources / "train"
        labels = (
            [str(train / "labels")]
            if self.args.layout == "registered"
            else [f"{sequence}={train / f'labels_{sequence}'}" for sequence in SEQUENCES]
        )
        self.command("convert", "nnunet_cmc", "convert", "folders", "-d", "950", "--name", "LGG",
                     "--images", *(f"{sequence}={train / sequence}" for sequence in SEQUENCES),
                     "--labels", *labels, "--classes", "tumour=1")  # fmt: skip
        cases = [self._case(number, subject) for number, subject in enumerate(self.train_subjects)]
        fold = {"train": sorted(cases[:4]), "val": sorted(cases[12:]), "unlabeled": sorted(cases[4:12])}
        write_json(self.raw / "splits_final.json", [fold])
        self.hidden = fold["unlabeled"]

    def _case(self, number: int, subject: str) -> str:
        return subject if self.args.layout == "registered" else f"{subject}_{SEQUENCES[number % 2]}"

    def _copy(self, part: str, subject: str, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.args.data / part / f"{subject}.nii.gz", folder)

    def train(self, step: str) -> None:
        self.command(
            step, "nnUNetv2_train", "950", "3d_fullres", "0", "-tr", self.trainer, "-p", PLANS, "-device", "cpu"
        )

    @property
    def model(self) -> Path:
        return self.results / f"{self.trainer}__{PLANS}__3d_fullres" / "fold_0"

    def weights(self) -> dict:
        return torch.load(self.model / "checkpoint_final.pth", weights_only=False)["network_weights"]

    def poison_hidden_labels(self) -> None:
        folder = self.preprocessed / f"{PLANS}_3d_fullres"
        for case in self.hidden:
            file = folder / f"{case}_seg.b2nd"
            shape = blosc2.open(str(file)).shape
            file.unlink()
            garbage = np.random.default_rng(0).integers(0, 2, shape).astype(np.int16)
            blosc2.asarray(garbage, urlpath=str(file))
            properties = load_pickle(str(folder / f"{case}.pkl"))
            properties["class_locations"] = {1: np.argwhere(garbage)[:100]}
            write_pickle(properties, str(folder / f"{case}.pkl"))

    def evaluate(self) -> dict:
        """Predict the test subjects with both sequences and with each alone; Dice on their own grids."""
        reference = self.args.output / "reference"
        for subject in self.test_subjects:
            self._copy("labels", subject, reference)
        dice = {}
        for given, channels in INPUTS.items():
            cases, predictions = self.args.output / "new_cases" / given, self.args.output / "predictions" / given
            cases.mkdir(parents=True)
            for subject in self.test_subjects:
                for channel in channels:
                    source = self.args.data / f"images_{SEQUENCES[channel]}" / f"{subject}.nii.gz"
                    shutil.copy(source, cases / f"{subject}_{channel:04d}.nii.gz")
            self.command(f"predict_{given}", "nnUNetv2_predict", "-d", "950", "-c", "3d_fullres", "-f", "0",
                         "-tr", self.trainer, "-p", PLANS, "-i", str(cases), "-o", str(predictions), "-device", "cpu",
                         "-npp", "1", "-nps", "1", "--disable_tta")  # fmt: skip
            for subject in self.test_subjects:
                geometry = [
                    (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
                    for folder in (reference, predictions)
                    for image in [sitk.ReadImage(str(folder / f"{subject}.nii.gz"))]
                ]
                np.testing.assert_allclose(*map(np.concatenate, geometry), atol=1e-4)
            evaluation = evaluate_folder(reference, predictions, json.loads((self.raw / "dataset.json").read_text()))
            statistic = evaluation.mean("Dice")
            dice[given] = round(100 * statistic.mean, 1)
        with (self.model / "progress.csv").open(newline="") as file:
            epochs = list(csv.DictReader(file))
        watched = [name for name in epochs[0] if name.startswith(("similarity/", "gradient/"))]
        losses = torch.load(self.model / "checkpoint_final.pth", weights_only=False)["logging"]
        return {
            "layout": self.args.layout,
            "trainer": self.args.trainer,
            "iterations": self.args.epochs * self.args.iterations,
            "seed": self.args.seed,
            "torch": torch.__version__,
            "cores": os.cpu_count(),
            "dice_percent_of_4_test_subjects": dice,
            "training_loss_first_and_last_epoch": [losses["train_losses"][0], losses["train_losses"][-1]],
            **{term: [losses[term][0], losses[term][-1]] for term in ("supervised", "csc", "cac")},
            "by_epoch": {name: [float(f"{float(epoch[name]):.3g}") for epoch in epochs] for name in watched},
        }

    def command(self, step: str, name: str, *arguments: str) -> None:
        """Run a command of this environment; its output goes to ``logs/``, its exit code must be 0."""
        logs = self.args.output / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        for part in ("raw", "preprocessed", "results"):
            (self.args.output / part).mkdir(exist_ok=True)
        print(f"{step} ...", flush=True)
        started = time.perf_counter()
        with (logs / f"{step}.txt").open("w") as log:
            script = Path(sysconfig.get_path("scripts")) / name
            code = subprocess.run(
                [script, *arguments], env=self.environment, stdout=log, stderr=subprocess.STDOUT, check=False
            ).returncode
        self.seconds[step] = round(time.perf_counter() - started, 1)
        if code:
            sys.exit(f"{name} ended with exit code {code}: see {logs / f'{step}.txt'}")


if __name__ == "__main__":
    main()
