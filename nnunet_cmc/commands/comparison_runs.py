"""Run what a comparison still lacks, by nnU-Net's commands."""

import os
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from subprocess import Popen

from nnunet_cmc.commands import trial_training
from nnunet_cmc.commands.compared_systems import System
from nnunet_cmc.commands.comparison_plan import Run, Trial, time_left, training_seconds
from nnunet_cmc.commands.expected_time import EPOCH_TIME, epochs_left
from nnunet_cmc.commands.subcommands import CommandError, run_logged, terminate
from nnunet_cmc.commands.trial_training import EXPECTED
from nnunet_cmc.utils.files import atomic_write
from nnunet_cmc.utils.formatting import clock, counted, duration
from nnunet_cmc.utils.parallel import TERMINATED

TOLD = 10  # times that a training or prediction prints how much is left


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
        self.trials: dict[System, Trial] = {}

    def time_trials(self, runs: Sequence[Run]) -> Mapping[System, Trial]:
        """Train each system for some seconds of which no earlier training tells the time.

        A system that fails at it fails again, and tells why, when its turn comes.
        """
        self.logs.mkdir(parents=True, exist_ok=True)
        unknown: dict[System, Run] = {}
        for run in runs:
            if training_seconds(run) is None:
                unknown.setdefault(run.system, run)
        for system, run in unknown.items():
            print(f"Training {system.name} for some seconds, to estimate the time.", flush=True)

            def keep(line: str, system: System = system) -> None:
                if expected := EXPECTED.match(line):
                    self.trials[system] = Trial(*map(float, expected.groups()))

            command = [sys.executable, "-m", trial_training.__name__, *self._what_to_train(run), *self._mirroring()]
            with suppress(CommandError), _sigterm_exits():
                run_logged(command, self.logs / f"{system.model.name}_trial.txt", self.environment, keep)
        return self.trials

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
        print(f"[{self._elapsed()}] {time_left(runs, self.jobs, self.trials)}", flush=True)

    def training(self, run: Run) -> list[str]:
        """Return the command that trains ``run`` to its end."""
        return ["nnUNetv2_train", *self._what_to_train(run), *(["--c"] if run.has_begun else [])]

    def _what_to_train(self, run: Run) -> list[str]:
        one, system = self.settings, run.system
        names = ["-tr", system.trainer, "-p", system.plans, "-device", one.device]
        return [one.dataset, one.configuration, run.fold, *names]

    def prediction(self, run: Run, folder: Path) -> list[str]:
        """Return the command that predicts the scans of ``run`` into ``folder``."""
        one, system = self.settings, run.system
        model = ["-d", one.dataset, "-c", one.configuration, "-f", run.fold, "-tr", system.trainer, "-p", system.plans]
        more = self._mirroring()
        if one.device == "cpu":  # one process keeps it busy
            more += ["-npp", "1", "-nps", "1"]
        files = ["-i", str(run.cases.images), "-o", str(folder)]
        return ["nnUNetv2_predict", *model, "-device", one.device, *more, *files]

    def _mirroring(self) -> list[str]:
        return [] if self.settings.mirroring else ["--disable_tta"]

    def _train(self, run: Run) -> None:
        seconds: list[float] = []
        left = 0

        def tell(line: str) -> None:
            nonlocal left
            if measured := EPOCH_TIME.search(line):
                left = left - 1 if seconds else (epochs_left(run.folder) or 0) - 1
                seconds.append(float(measured[1]))
                self._say_left(run, "epoch", len(seconds), left, fmean(seconds))

        self._command(run, "train", self.training(run), tell)

    def _predict(self, run: Run, folder: Path) -> None:
        begun: list[float] = []

        def tell(line: str) -> None:
            if line.startswith("Predicting "):
                begun.append(time.monotonic())
                done = len(begun) - 1
                self._say_left(run, "case", done, run.number_of_cases - done, (begun[-1] - begun[0]) / max(1, done))

        self._command(run, "predict", self.prediction(run, folder), tell)

    def _say_left(self, run: Run, what: str, done: int, left: int, seconds: float) -> None:
        """Print how many epochs or cases are left, after the first one and after each tenth of them."""
        if left > 0 and (done == 1 or (done > 1 and done % -(-(done + left) // TOLD) == 0)):
            self._say(run, f"{counted(left, what)} left, about {duration(left * seconds)}")

    def _command(self, run: Run, step: str, command: list[str], line=lambda text: None) -> None:
        def started(process: Popen) -> None:
            self.processes.add(process)
            if self.stopping.is_set():
                terminate(process)

        self._say(run, f"$ {shlex.join(command)}")
        begin = time.monotonic()
        log = self.logs / f"{run.system.model.name}_fold_{run.fold}_{step}.txt"
        run_logged(command, log, self.environment, line, started)
        self._say(run, f"{step} took {clock(time.monotonic() - begin)}")

    def _say(self, run: Run, text: str) -> None:
        print(f"[{self._elapsed()}] {run.name}: {text}", flush=True)

    def _elapsed(self) -> str:
        return clock(time.monotonic() - self.start)


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
