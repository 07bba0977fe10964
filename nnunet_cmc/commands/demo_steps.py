"""The demo's pipeline: generated scans through our commands and nnU-Net's, ending with a table and a picture."""

import os
import re
import shlex
import shutil
import time
from pathlib import Path
from typing import Any

from nnunet_cmc.commands.outcome import Outcome
from nnunet_cmc.commands.subcommands import run_logged
from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.dataset_conversion import phantom
from nnunet_cmc.dataset_conversion.phantom import CLASSES, MODALITIES
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.prediction_picture import CaseFiles, save_overview
from nnunet_cmc.evaluation.results import Evaluation
from nnunet_cmc.utils.files import write_json
from nnunet_cmc.utils.formatting import clock

DATASET_ID = 999
NAME = "CMCDemo"
TRAINER, PLANS = "CMCTrainer_demo", "CMCNNUNetSmallPlans"
SUBJECTS: dict[str, Any] = {"labeled": 6, "unlabeled": 8, "test": 4}
INPUTS = {"both": MODALITIES, **{modality: (modality,) for modality in MODALITIES}}
STEPS = 5 + 2 * len(INPUTS)  # generate, convert, split, plan, train; predict and evaluate each input
LEFT = " left"  # ends the line of a bar between its ends
SECONDS = 5  # between two lines that show how far a bar is
BAR = re.compile(r"([A-Z][\w ]*): +\d+%\|.*\| (\d+)/(\d+) \[[\d:]+<([\d:?]+)")  # of tqdm
MARKS = ("Fingerprint extraction", "Target spacing", "Preprocessing dataset", "Epoch ", "Predicting ", "predicting ")
CASE = re.compile(r"Case \S+ is predicted from .*")
VARIABLES = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": "results"}


class Demo:
    """Run all steps, each a command whose full output is written to ``logs/``.

    Args:
        output: a folder that does not exist yet, or is empty.
        seed: of the scans, the folds and the training.

    Raises:
        ValueError: ``output`` is not empty.
    """

    def __init__(self, output: str | Path, seed: int):
        self.output = Path(output).resolve()
        self.seed = seed
        if self.output.exists() and any(self.output.iterdir()):
            raise ValueError(f"{self.output} is not empty: remove it, or name another folder with --output.")
        (self.output / "logs").mkdir(parents=True, exist_ok=True)
        self.environment = {
            # One CPU does everything: no processes that compete for it, and threads that sleep while they wait.
            **{"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            **os.environ,
            **{variable: str(self.output / folder) for variable, folder in VARIABLES.items()},
            "NNUNET_CMC_SEED": str(seed),
            "PYTHONUNBUFFERED": "1",  # or progress would come in blocks of 8 KiB
        }
        for folder in VARIABLES.values():
            (self.output / folder).mkdir()
        self.dataset = self.output / VARIABLES["nnUNet_raw"] / f"Dataset{DATASET_ID:03d}_{NAME}"
        self.started = time.monotonic()
        self.step = 0

    def run(self) -> Outcome:
        """Run every step, and return the content of ``demo.json`` as numbers. RuntimeError if a step fails."""
        print(f"Everything is written to {self.output}. nnU-Net's folders:")
        for variable in VARIABLES:
            print(f"  export {variable}={self.environment[variable]}")
        self._convert()
        split = f"nnunet_cmc split -d {DATASET_ID} --labeled 1.0 --val 0.34 --seed {self.seed}"
        self._command("split", "Split", split)
        plan = f"nnUNetv2_plan_and_preprocess -d {DATASET_ID} -pl CMCPlannerNNUNetSmall -fpe CMCFingerprintExtractor"
        self._command("plan_and_preprocess", "Plan and preprocess", f"{plan} -c 3d_fullres -npfp 1 -np 1")
        train = f"nnUNetv2_train {DATASET_ID} 3d_fullres 0 -tr {TRAINER} -p {PLANS} -device cpu"
        self._command("train", "Train", train)
        evaluations = {given: self._predict(given, channels) for given, channels in INPUTS.items()}
        return self._report(evaluations)

    def _convert(self) -> None:
        self._begin(f"Generate scans of {sum(SUBJECTS.values())} subjects in CT and MR")
        sources = phantom.generate(self.output / "scans", layout="registered", seed=self.seed, **SUBJECTS)
        files = ["--images", *_assignments(sources["images"]), "--labels", sources["labels"]]
        files += ["--classes", *_assignments(CLASSES), "--test-images", *_assignments(sources["test_images"])]
        command = f"nnunet_cmc convert folders -d {DATASET_ID} --name {NAME}"
        self._command("convert", "Convert", command, *files, "--test-labels", sources["test_labels"])

    def _predict(self, given: str, channels: tuple[str, ...]) -> Evaluation:
        """Predict the test scans from only ``channels``, and evaluate the result."""
        cases, predictions = self.output / "new_cases" / given, self.output / "predictions" / given
        cases.mkdir(parents=True)
        for modality in channels:
            for file in sorted((self.dataset / "imagesTs").glob(f"*_{MODALITIES.index(modality):04d}.nii.gz")):
                shutil.copy(file, cases)
        command = f"nnUNetv2_predict -d {DATASET_ID} -c 3d_fullres -f 0 -tr {TRAINER} -p {PLANS} -device cpu"
        files = ("-npp", 0, "-nps", 0, "--disable_tta", "-i", cases, "-o", predictions)
        self._command(f"predict_{given}", f"Predict with {' and '.join(channels)}", command, *files)
        references = self.dataset / "labelsTs"
        command = f"nnunet_cmc evaluate -d {DATASET_ID} -np 1"
        self._command(f"evaluate_{given}", "Evaluate", command, "-r", references, "-p", predictions)
        description = DatasetDescription.read(self.dataset / "dataset.json")
        return evaluate_folder(references, predictions, description, progress=False)

    def _report(self, evaluations: dict[str, Evaluation]) -> Outcome:
        dice = {
            given: {name: evaluation.statistic(name, "Dice").mean for name in CLASSES}
            for given, evaluation in evaluations.items()
        }
        mean = {given: evaluation.mean("Dice").mean for given, evaluation in evaluations.items()}
        result = {"mean_dice": mean, "dice": dice, "test_cases": SUBJECTS["test"], "seed": self.seed}
        result["seconds"] = round(time.monotonic() - self.started, 1)
        write_json(self.output / "demo.json", result)
        picture = self.output / "demo.png"
        save_overview(picture, [self._files(case.case) for case in evaluations["both"].cases[:2]], CLASSES)

        print(f"\n[{self._elapsed()}] Dice of {SUBJECTS['test']} test subjects: both modalities given, or only one")
        print("\n" + "".join(f"{title:>14}" for title in ("", *evaluations)))
        for name in CLASSES:
            print(f"{name:>14}" + "".join(f"{dice[given][name]:14.3f}" for given in evaluations))
        print(f"{'mean':>14}" + "".join(f"{mean[given]:14.3f}" for given in evaluations))
        model = self.output / VARIABLES["nnUNet_results"] / self.dataset.name / f"{TRAINER}__{PLANS}__3d_fullres"
        written = [model, self.output / "predictions", picture, self.output / "demo.json", self.output / "logs"]
        return Outcome(result, written)

    def _files(self, case: str) -> CaseFiles:
        images = {m: self.dataset / "imagesTs" / f"{case}_{c:04d}.nii.gz" for c, m in enumerate(MODALITIES)}
        predictions = {
            "both" if given == "both" else f"{given} only": self.output / "predictions" / given / f"{case}.nii.gz"
            for given in INPUTS
        }
        return CaseFiles(case, images, self.dataset / "labelsTs" / f"{case}.nii.gz", predictions)

    def _command(self, step: str, title: str, words: str, *arguments) -> None:
        """Print a command, of ``words`` and ``arguments``, run it, and show its progress."""
        command = [*words.split(), *map(str, arguments)]
        self._begin(f"{title}\n  $ {shlex.join(command)}")
        last, since = None, 0.0

        def show(line: str) -> None:
            nonlocal last, since
            shown = _progress(line)
            is_within = shown is not None and shown.endswith(LEFT)
            if shown in (None, last) or (is_within and time.monotonic() - since < SECONDS):
                return
            print(f"    [{self._elapsed()}] {shown}", flush=True)
            last, since = shown, time.monotonic()

        run_logged(command, self.output / "logs" / f"{step}.txt", self.environment, show)

    def _begin(self, title: str) -> None:
        self.step += 1
        print(f"\n[{self._elapsed()}] Step {self.step} of {STEPS}: {title}", flush=True)

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self.started)


def _assignments(pairs: dict) -> list[str]:
    return [f"{name}={value}" for name, value in pairs.items()]


def _progress(line: str) -> str | None:
    """Return what to show of a line of output: epochs, predicted and validated cases, and the state of bars.

    A bar ends each state with the next one, so what begins is told by a line before it.
    """
    message = line.rstrip().split("\r")[-1]
    if bar := BAR.match(message):
        what, done, total, left = bar.groups()
        return f"{what}: {done} of {total}" + (f", {left}{LEFT}" if 0 < int(done) < int(total) else "")
    if case := CASE.search(message):
        return case[0]
    return next((message[message.index(mark) :] for mark in MARKS if mark in message), None)
