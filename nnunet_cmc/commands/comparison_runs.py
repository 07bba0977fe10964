"""What of a comparison is missing: a training and a prediction for each system and fold, as nnU-Net's commands."""

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
from subprocess import Popen

from nnunet_cmc.commands.compared_systems import System
from nnunet_cmc.commands.subcommands import CommandError, elapsed, run_logged, terminate
from nnunet_cmc.commands.training_time import CHECKPOINTS, EPOCH_TIME, epochs_left, expected_seconds
from nnunet_cmc.evaluation.tables import text_table
from nnunet_cmc.utils.files import atomic_write

UNKNOWN = "not known before the first epoch"
TERMINATED = 128 + signal.SIGTERM  # exit code, as a shell reports it


@dataclass(frozen=True)
class Run:
    """A system on one fold.

    Attributes:
        images: folder of the scans to predict.
        predictions: folder of what is predicted, which is there when all of it is.
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
    def folder(self) -> Path:
        """Folder of the trained fold."""
        return self.system.model / f"fold_{self.fold}"

    @property
    def is_trained(self) -> bool:
        """Whether the training came to its end."""
        return (self.folder / CHECKPOINTS[0]).is_file()

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint that the training can go on from."""
        return any((self.folder / name).is_file() for name in CHECKPOINTS)

    @property
    def is_predicted(self) -> bool:
        """Whether all is predicted, and by the checkpoint that is there."""
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
    """Describe what will be done, and how long the trainings are expected to take."""
    rows, times = [["system", "fold", "training", "prediction", "expected time of the training"]], []
    for run in runs:
        training = "done" if run.is_trained else "to continue" if run.has_begun else "to do"
        seconds = None if run.is_trained else expected_seconds(run.folder)
        if not run.is_trained:
            times.append(seconds)
        time_left = "" if run.is_trained else UNKNOWN if seconds is None else f"about {elapsed(seconds)}"
        rows.append([run.system.name, run.fold, training, "done" if run.is_predicted else "to do", time_left])
    return f"{text_table(rows)}\n\n{_total(times, jobs)}"


def _total(times: Sequence[float | None], jobs: int) -> str:
    if not times:
        return "Nothing is left to train."
    known = [seconds for seconds in times if seconds is not None]
    total = f"about {elapsed(sum(known))} in sum, by the epochs of earlier runs" if known else UNKNOWN
    others = f"; of {len(times) - len(known)} {UNKNOWN}" if 0 < len(known) < len(times) else ""
    at_once = "one at a time" if jobs == 1 else f"{jobs} at the same time"
    return f"{len(times)} to train, {at_once}; expected time: {total}{others}. Predictions come on top."


class Runner:
    """Trains and predicts what is missing; what nnU-Net says goes to ``logs``.

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

        An interrupt or SIGTERM reaches the commands as SIGTERM, at which trainings of ours save and exit.
        """
        failures: dict[Run, CommandError] = {}
        self.logs.mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(self.jobs) as pool, _sigterm_exits():
            futures = {pool.submit(self._do, run): run for run in runs if not run.is_predicted}
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

    def _do(self, run: Run) -> None:
        if not run.is_trained:
            self._train(run)
        shutil.rmtree(run.predictions, ignore_errors=True)  # of an earlier checkpoint
        run.predictions.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(run.predictions) as folder:
            self._command(run, "predict", self.prediction(run, folder))

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
        if one.device == "cpu":  # which one process keeps busy
            more += ["-npp", "1", "-nps", "1"]
        files = ["-i", str(run.images), "-o", str(folder)]
        return ["nnUNetv2_predict", *model, "-device", one.device, *more, *files]

    def _train(self, run: Run) -> None:
        told = False

        def tell(line: str) -> None:
            nonlocal told
            if not told and (measured := EPOCH_TIME.search(line)):
                told = True
                if (left := epochs_left(run.folder)) is not None:
                    seconds = float(measured[1]) * max(0, left - 1)
                    self._say(run, f"{measured[1]} s for its first epoch, so about {elapsed(seconds)} to go")

        self._command(run, "train", self.training(run), tell)

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
        print(f"[{elapsed(time.monotonic() - self.start)}] {run.name}: {text}", flush=True)


def why(failures: Mapping[Run, CommandError], logs: Path) -> dict[str, str]:
    """Say of each system with a run that failed, why it has no numbers."""
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
