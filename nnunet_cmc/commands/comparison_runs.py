"""Run what a comparison still lacks: a training and a prediction for each system and fold, by nnU-Net's commands."""

import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median
from subprocess import Popen

from nnunet_cmc.commands.compared_systems import System
from nnunet_cmc.commands.expected_time import (
    CHECKPOINTS,
    EPOCH_TIME,
    epochs_left,
    expected_seconds,
    seconds_per_case,
    whole_seconds,
)
from nnunet_cmc.commands.subcommands import CommandError, elapsed, run_logged, terminate
from nnunet_cmc.evaluation.tables import text_table
from nnunet_cmc.utils.files import atomic_write

UNKNOWN = "not known yet"
TOLD = 10  # times that a training or prediction prints how much is left
TERMINATED = 128 + signal.SIGTERM  # exit code, as a shell reports it


@dataclass(frozen=True)
class Run:
    """A system on one fold.

    Attributes:
        images: folder of the scans to predict.
        predictions: folder of the predictions, which exists once all are made.
    """

    system: System
    fold: str
    images: Path
    predictions: Path

    @property
    def name(self) -> str:
        """Name for the screen."""
        return f"{self.system.name}, fold {self.fold}"

    @property
    def number_of_cases(self) -> int:
        """Number of cases to predict, each of which has a file for every channel."""
        return len(list(self.images.glob("*_0000.*")))

    @property
    def folder(self) -> Path:
        """Folder of the trained fold."""
        return self.system.model / f"fold_{self.fold}"

    @property
    def is_trained(self) -> bool:
        """Whether the training is finished."""
        return (self.folder / CHECKPOINTS[0]).is_file()

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint to resume the training from."""
        return any((self.folder / name).is_file() for name in CHECKPOINTS)

    @property
    def is_predicted(self) -> bool:
        """Whether all cases are predicted, and by the present checkpoint."""
        checkpoint = self.folder / CHECKPOINTS[0]
        there = self.is_trained and self.predictions.is_dir()
        return there and self.predictions.stat().st_mtime >= checkpoint.stat().st_mtime


@dataclass(frozen=True)
class Settings:
    """Arguments of nnU-Net's commands that are the same for all runs.

    Attributes:
        dataset: ID or name.
        seed: of the trainers of this package; nnU-Net's own have none.
        mirroring: at prediction.
    """

    dataset: str
    configuration: str
    device: str
    seed: int
    mirroring: bool


def plan_text(runs: Sequence[Run], jobs: int) -> str:
    """Describe what will be done, and how long it is expected to take."""
    rows = [["system", "fold", "training", "prediction"]]
    rows += [[run.system.name, run.fold, *map(_step, _states(run), _seconds(run, runs))] for run in runs]
    return f"{text_table(rows)}\n\n{time_left(runs, jobs)}"


def time_left(runs: Sequence[Run], jobs: int) -> str:
    """Format how many trainings and predictions are left, and the expected time, from that of earlier ``runs``."""
    number = [sum(not run.is_trained for run in runs), sum(not run.is_predicted for run in runs)]
    if not any(number):
        return "Nothing is left to train or to predict."
    times = [seconds for run in runs for seconds in _seconds(run, runs)]
    known = [seconds for seconds in times if seconds is not None]
    total = f"about {elapsed(sum(known))} in sum, by earlier runs" if any(known) else UNKNOWN
    others = f"; of {len(times) - len(known)} {UNKNOWN}" if any(known) and len(known) < len(times) else ""
    at_once = "one at a time" if jobs == 1 else f"{jobs} at the same time"
    return f"To train: {number[0]}, to predict: {number[1]}, {at_once}; expected time: {total}{others}."


def _states(run: Run) -> tuple[str, str]:
    training = "done" if run.is_trained else "to continue" if run.has_begun else "to do"
    return training, "done" if run.is_predicted else "to do"


def _seconds(run: Run, runs: Sequence[Run]) -> tuple[float | None, float | None]:
    """Estimate the seconds left of the training and of the prediction: 0 if done, None if unknown.

    Of a system that has not begun, they are those of others on the same plans, whether compared or not.
    """
    training = 0.0 if run.is_trained else expected_seconds(run.folder)
    if training is None:
        folds = [fold for model in run.system.models_alike() for fold in model.glob("fold_*")]
        whole = [seconds for fold in folds if (seconds := whole_seconds(fold)) is not None]
        training = median(whole) if whole else None
    if run.is_predicted:
        return training, 0.0
    finished = [other for other in runs if other.is_predicted]
    own = [other for other in finished if other.system == run.system] or finished
    each = [seconds for other in own if (seconds := seconds_per_case(other.predictions)) is not None]
    return training, run.number_of_cases * median(each) if each else None


def _step(state: str, seconds: float | None) -> str:
    return (
        state
        if state == "done"
        else f"{state}, {f'time {UNKNOWN}' if seconds is None else f'about {elapsed(seconds)}'}"
    )


class Runner:
    """Trains and predicts what is missing; nnU-Net's output is written to ``logs``.

    Args:
        jobs: runs at the same time.
    """

    def __init__(self, settings: Settings, logs: Path, jobs: int = 1):
        self.settings, self.logs, self.jobs = settings, logs, jobs
        self.environment = {**os.environ, "NNUNET_CMC_SEED": str(settings.seed), "PYTHONUNBUFFERED": "1"}
        self.processes: set[Popen] = set()
        self.stopping = threading.Event()
        self.start = time.monotonic()

    def run(self, runs: Sequence[Run]) -> dict[Run, CommandError]:
        """Do what is missing of ``runs``, in their order, and return those that failed.

        An interrupt or SIGTERM reaches the commands as SIGTERM, at which our trainers save and exit.
        """
        failures: dict[Run, CommandError] = {}
        self.logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.jobs) as pool, _sigterm_exits():
            futures = {pool.submit(self._do, run, runs): run for run in runs if not run.is_predicted}
            try:
                for future in as_completed(futures):
                    try:
                        future.result()
                    except CommandError as error:
                        failures[futures[future]] = error
                        self._say(futures[future], error.refusal or str(error))
            except BaseException:
                self.stopping.set()
                for process in list(self.processes):
                    terminate(process)
                pool.shutdown(cancel_futures=True)
                raise
        return failures

    def _do(self, run: Run, runs: Sequence[Run]) -> None:
        if not run.is_trained:
            self._train(run)
        shutil.rmtree(run.predictions, ignore_errors=True)  # of an earlier checkpoint
        run.predictions.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(run.predictions) as folder:
            self._predict(run, folder)
        print(f"[{self._elapsed()}] {time_left(runs, self.jobs)}", flush=True)

    def training(self, run: Run) -> list[str]:
        """Return the command that trains ``run`` to its end."""
        what = [self.settings.dataset, self.settings.configuration, run.fold, "-tr", run.system.trainer]
        more = ["-p", run.system.plans, "-device", self.settings.device, *(["--c"] if run.has_begun else [])]
        return ["nnUNetv2_train", *what, *more]

    def prediction(self, run: Run, folder: Path) -> list[str]:
        """Return the command that predicts the scans of ``run`` into ``folder``."""
        one, system = self.settings, run.system
        model = ["-d", one.dataset, "-c", one.configuration, "-f", run.fold, "-tr", system.trainer, "-p", system.plans]
        more = [] if one.mirroring else ["--disable_tta"]
        if one.device == "cpu":  # one process keeps it busy
            more += ["-npp", "1", "-nps", "1"]
        files = ["-i", str(run.images), "-o", str(folder)]
        return ["nnUNetv2_predict", *model, "-device", one.device, *more, *files]

    def _train(self, run: Run) -> None:
        seconds: list[float] = []
        left = 0

        def tell(line: str) -> None:
            nonlocal left
            if measured := EPOCH_TIME.search(line):
                left = left - 1 if seconds else (epochs_left(run.folder) or 0) - 1
                seconds.append(float(measured[1]))
                self._say_left(run, "epochs", len(seconds), left, fmean(seconds))

        self._command(run, "train", self.training(run), tell)

    def _predict(self, run: Run, folder: Path) -> None:
        begun: list[float] = []

        def tell(line: str) -> None:
            if line.startswith("Predicting "):
                begun.append(time.monotonic())
                done = len(begun) - 1
                self._say_left(run, "cases", done, run.number_of_cases - done, (begun[-1] - begun[0]) / max(1, done))

        self._command(run, "predict", self.prediction(run, folder), tell)

    def _say_left(self, run: Run, what: str, done: int, left: int, seconds: float) -> None:
        """Print how many epochs or cases are left, after the first one and after each tenth of them."""
        if left > 0 and (done == 1 or (done > 1 and done % -(-(done + left) // TOLD) == 0)):
            self._say(run, f"{left} {what} left, about {elapsed(left * seconds)}")

    def _command(self, run: Run, step: str, command: list[str], line=lambda text: None) -> None:
        def started(process: Popen) -> None:
            self.processes.add(process)
            if self.stopping.is_set():
                terminate(process)

        self._say(run, f"$ {shlex.join(command)}")
        begin = time.monotonic()
        log = self.logs / f"{run.system.model.name}_fold_{run.fold}_{step}.txt"
        run_logged(command, log, self.environment, line, started)
        self._say(run, f"{step} took {elapsed(time.monotonic() - begin)}")

    def _say(self, run: Run, text: str) -> None:
        print(f"[{self._elapsed()}] {run.name}: {text}", flush=True)

    def _elapsed(self) -> str:
        return elapsed(time.monotonic() - self.start)


def why(failures: Mapping[Run, CommandError], logs: Path) -> dict[str, str]:
    """Format, for each system with a failed run, why it has no result."""
    reasons: dict[str, str] = {}
    for run, error in failures.items():
        reason = error.refusal or f"a command failed, see {logs}."
        reasons.setdefault(run.system.name, f"(fold {run.fold}) {reason}")
    return reasons


@contextmanager
def _sigterm_exits() -> Iterator[None]:
    """Let SIGTERM end this process as an exception does; only the main thread may handle signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
