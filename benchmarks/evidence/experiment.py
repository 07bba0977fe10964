"""One run from raw scans to its records, with nnU-Net's own commands; what is done already is not done again."""

import json
import os
import shutil
import subprocess
import sysconfig
import time
import traceback
from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Lock

from arrangements import Subjects, convert, dataset_name, fold_number, folds, make_scans, put_cases
from pseudo_labels import fold_with_pseudo_labels, make_dataset, put_unlabeled
from systems import PLANS, Run, reduce_plans

from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.results import CaseResult, Statistic
from nnunet_cmc.utils.files import write_json

CONFIGURATION = "3d_fullres"
# nnU-Net's command does not pass on the arguments of our planner
PLAN = (
    "import ast, sys; from nnunet_cmc.planners import nnunet; "
    "getattr(nnunet, sys.argv[1])(int(sys.argv[2]), **ast.literal_eval(sys.argv[3])).plan_experiment()"
)
LOCKS: defaultdict[Path, Lock] = defaultdict(Lock)  # of the folders that several runs share


class Bench:
    """The runs of one profile and seed on one set of scans at one misalignment, in a folder of their own.

    What several runs share, as scans, a dataset or a model, is made once, also when they run at the same time.

    Args:
        data: folder of the source's scans.
        work: folder for everything.
        run: one of them.
    """

    def __init__(self, data: Path, work: Path, run: Run):
        self.data, self.profile, self.source, self.shift = data, run.profile, run.source, run.shift
        self.subjects = Subjects(data, self.source, run.seed)
        shared = work / self.profile.name / f"{self.source.name}-{self.shift:g}mm"
        self.scans = shared / "scans"
        # test subjects of a seed are in none of its datasets, so every seed has its own
        self.work = shared / f"seed{run.seed}" if run.seed else shared
        self.folders = {part: self.work / part for part in ("raw", "preprocessed", "results")}
        for folder in (*self.folders.values(), self.work / "logs"):
            folder.mkdir(parents=True, exist_ok=True)

    def finish(self, run: Run) -> list[dict]:
        """Train, predict, evaluate, and return the run's records."""
        done = self.work / "records" / f"{run.key}.json"
        if not done.is_file():
            seconds = self.train(run)
            found = [self.evaluate(run, given, seconds) for given in run.inputs]
            done.parent.mkdir(exist_ok=True)
            write_json(done, found)
        return json.loads(done.read_text())

    def train(self, run: Run) -> float:
        """Train, or go on where a training was cut, and return its wall time in seconds, with that of its teachers."""
        before = self.train(run.teacher) if run.teacher else 0.0
        self.prepare(run)
        model = self.model(run)
        clock = model / "seconds.json"
        with LOCKS[model]:
            spent = json.loads(clock.read_text()) if clock.is_file() else 0.0
            if not (model / "checkpoint_final.pth").is_file():
                resume = ["--c"] if (model / "checkpoint_latest.pth").is_file() else []
                started = time.perf_counter()
                try:
                    self.command(
                        f"{run.key}-train", "nnUNetv2_train", self._number(run), CONFIGURATION, self.fold(run),
                        "-tr", run.budgeted, "-p", PLANS[run.planner], "-device", self.profile.device, *resume,
                        seed=run.seed,
                    )  # fmt: skip
                finally:
                    spent += time.perf_counter() - started
                    model.mkdir(parents=True, exist_ok=True)
                    write_json(clock, spent)
        return before + spent

    def prepare(self, run: Run) -> None:
        """Convert, plan and preprocess the run's dataset; its teacher was trained before."""
        raw, preprocessed = self.raw(run), self.folders["preprocessed"] / self._name(run)
        done, splits = preprocessed / f"{run.planner}.complete", self.splits(run)
        with LOCKS[self.scans]:
            make_scans(self.data, self.scans, self.subjects, self.shift)
        with LOCKS[raw]:
            if not done.is_file():
                self._make_raw(run)
                write_json(raw / "splits_final.json", splits)
                self._preprocess(run)
                done.touch()
            write_json(preprocessed / "splits_final.json", splits)

    def splits(self, run: Run) -> list[dict[str, list[str]]]:
        """Return the folds of the run's dataset: all experiments on it, or the one of its pseudo-labels."""
        if run.teacher:
            unlabeled_too = self.splits(run.labels_alone)[self.fold(run.labels_alone)]
            return [fold_with_pseudo_labels(unlabeled_too)]
        return folds(run.dataset, self.subjects)

    def _make_raw(self, run: Run) -> None:
        raw, log = self.raw(run), f"prepare-{run.dataset}"
        shutil.rmtree(raw, ignore_errors=True)
        if not run.teacher:
            convert(run.dataset, self.scans, self.subjects, self.work, partial(self.command, f"{log}-convert"))
            return
        cases, predicted = self.work / "cases" / log, self.work / "predictions" / log
        labels_alone = run.labels_alone
        unlabeled = self.splits(labels_alone)[self.fold(labels_alone)]["unlabeled"]
        put_unlabeled(self.raw(run.teacher), unlabeled, cases)
        self.predict(run.teacher, cases, predicted, f"{log}-teacher")
        make_dataset(self.raw(run.teacher), predicted, unlabeled, raw)

    def _preprocess(self, run: Run) -> None:
        number, log, reduced = self._number(run), f"prepare-{run.dataset}", self.profile.reduced
        spacing = [self.profile.spacing] * 3
        extractor = [] if run.stock else ["-fpe", "CMCFingerprintExtractor"]
        self.command(f"{log}-fingerprint", "nnUNetv2_extract_fingerprint", "-d", number, *extractor, "-np", 1)
        if run.stock:
            self.command(
                f"{log}-plan", "nnUNetv2_plan_experiment", "-d", number, "-pl", run.planner,
                "-overwrite_target_spacing", *spacing, "-overwrite_plans_name", PLANS[run.planner],
            )  # fmt: skip
            reduce_plans(self.folders["preprocessed"] / self._name(run) / f"{PLANS[run.planner]}.json", reduced)
        else:
            sizes = {"channels": reduced.channels, "batch_size": reduced.batch}
            arguments = {"overwrite_target_spacing": spacing, **sizes}
            self.command(f"{log}-plan", "python", "-c", PLAN, run.planner, number, arguments)
        self.command(
            f"{log}-preprocess", "nnUNetv2_preprocess", "-d", number, "-plans_name", PLANS[run.planner],
            "-c", CONFIGURATION, "-np", 1,
        )  # fmt: skip

    def evaluate(self, run: Run, given: str, seconds: float) -> dict:
        """Predict with the modalities ``given``: test and validation subjects, and unlabelled ones of the training."""
        seen = self.subjects.unlabeled(run.labels)[: self.profile.transductive]
        groups = {"test": self.subjects.test, "validation": self.subjects.validation, "transductive": seen}
        everybody = [subject for group in groups.values() for subject in group]
        evaluated = self.evaluate_subjects(run, given, everybody)
        by_group = {group: [evaluated[subject] for subject in members] for group, members in groups.items()}
        return self.describe(run, given, seconds) | {
            "dice": mean_dice(by_group["test"]),
            "assd": mean_assd(by_group["test"]),
            "dice_by_subject": dice_of(by_group["test"]),
            "validation_dice": mean_dice(by_group["validation"]),
            "transductive_dice": mean_dice(by_group["transductive"]) if seen else None,
            "transductive_by_subject": dice_of(by_group["transductive"]),
        }

    def describe(self, run: Run, given: str, seconds: float) -> dict:
        """Return what a record says of the run itself."""
        return run.description | {
            "fold": self.subjects.fold, "test_input": given, "iterations": self.profile.total_iterations,
            "seconds": round(seconds), "device": device_name(self.profile.device), "commit": commit(),
        }  # fmt: skip

    def evaluate_subjects(self, run: Run, given: str, chosen: list[str]) -> dict[str, CaseResult]:
        """Predict these subjects with the modalities ``given``, and evaluate each by its label."""
        cases, references, predictions = (
            self.work / part / run.key / given for part in ("cases", "references", "predictions")
        )
        channels = "stacked" if run.stock and run.channels == "both" else run.channels
        put_cases(self.source, self.scans, chosen, run.arrangement == "misaligned", given, channels, cases, references)
        self.predict(run, cases, predictions, f"{run.key}-predict-{given}")
        dataset_json = json.loads((self.raw(run) / "dataset.json").read_text())
        dataset_json.pop("cmc", None)  # names the training's cases, not these
        evaluated = evaluate_folder(references, predictions, dataset_json, progress=False).cases
        shutil.rmtree(cases)
        shutil.rmtree(references)
        return {case.case: case for case in evaluated}

    def predict(self, run: Run, cases: Path, predictions: Path, log: str) -> None:
        """Predict with the final checkpoint, without test-time mirroring."""
        self.command(
            log, "nnUNetv2_predict", "-d", self._number(run), "-c", CONFIGURATION, "-f", self.fold(run),
            "-tr", run.budgeted, "-p", PLANS[run.planner], "-i", cases, "-o", predictions,
            "-device", self.profile.device, "-npp", 0, "-nps", 0, "--disable_tta",
        )  # fmt: skip

    def fold(self, run: Run) -> int:
        """Return the number of the run in the splits of its dataset."""
        return 0 if run.recipe else fold_number(self.source, run.trained_in, run.labels)

    def raw(self, run: Run) -> Path:
        """Return the folder of the run's dataset."""
        return self.folders["raw"] / self._name(run)

    def model(self, run: Run) -> Path:
        """Return the folder of the run's fold."""
        trained = f"{run.description['trainer']}__{PLANS[run.planner]}__{CONFIGURATION}"
        return self.folders["results"] / self._name(run) / trained / f"fold_{self.fold(run)}"

    def _name(self, run: Run) -> str:
        return dataset_name(self.source, run.dataset)

    def _number(self, run: Run) -> int:
        return self.source.datasets[run.dataset]

    def command(self, log: str, name: str, *arguments, seed: int = 0) -> None:
        """Run a command of this environment with one thread; RuntimeError with its log's name if it fails."""
        environment = {
            **os.environ,
            **{f"nnUNet_{part}": str(folder) for part, folder in self.folders.items()},
            "NNUNET_CMC_SEED": str(seed),
            "NNUNET_CMC_EPOCHS": str(self.profile.epochs),
            "NNUNET_CMC_ITERATIONS": str(self.profile.iterations),
        }
        if self.profile.device == "cpu":  # two runs side by side do more than one on two cores
            workers = "0" if name == "nnUNetv2_train" else "1"  # nnU-Net's planner wants one
            threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
            environment |= {"nnUNet_n_proc_DA": workers, "nnUNet_def_n_proc": "1", **threads}
        file = self.work / "logs" / f"{log}.txt"
        with file.open("w") as output:
            call = [str(Path(sysconfig.get_path("scripts")) / name), *map(str, arguments)]
            done = subprocess.run(call, env=environment, stdout=output, stderr=subprocess.STDOUT, check=False)
        if done.returncode:
            raise RuntimeError(f"{name} ended with exit code {done.returncode}: see {file}")


def finish_all(
    runs: Sequence[Run], finish: Callable[[Run], list[dict]], jobs: int, keep: Callable[[Run, list[dict]], None]
) -> int:
    """Finish runs, some at the same time, and return how many failed.

    Args:
        runs: those of several tables are finished once.
        finish: returns a run's records.
        jobs: runs at the same time.
        keep: is given each finished run's records, one run at a time.
    """
    keeping, failed = Lock(), []

    def work(run: Run) -> None:
        try:
            found = finish(run)
        except Exception:
            failed.append(run)
            traceback.print_exc()
            return
        with keeping:
            keep(run, found)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(work, dict.fromkeys(runs)))
    return len(failed)


def dice_of(cases: list[CaseResult]) -> list[float]:
    """Return Dice in percent, the mean over the classes, one for each subject."""
    return [round(100 * _mean_over_classes(case, "Dice"), 1) for case in cases]


def mean_dice(cases: list[CaseResult]) -> float:
    return round(100 * Statistic.of(_mean_over_classes(case, "Dice") for case in cases).mean, 2)


def mean_assd(cases: list[CaseResult]) -> float | None:
    """Average ASSD in mm over what is both there and predicted; None if nothing is."""
    assd = Statistic.of(_mean_over_classes(case, "ASSD") for case in cases)
    return round(assd.mean, 2) if assd.n else None


def _mean_over_classes(case: CaseResult, metric: str) -> float:
    return Statistic.of(metrics[metric] for metrics in case.metrics.values()).mean


def device_name(device: str) -> str:
    if device == "cpu":
        return f"CPU, one thread of {os.cpu_count()} cores"
    import torch

    return torch.cuda.get_device_name()


def commit() -> str:
    folder = Path(__file__).parent
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True, check=False
    ).stdout.strip()
