"""What a comparison still lacks, a training or a prediction for each system and fold, and how long it will take."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import NamedTuple

from nnunet_cmc.commands.compared_systems import System
from nnunet_cmc.commands.expected_time import expected_seconds, has_checkpoint, seconds_per_case
from nnunet_cmc.data.format.checkpoint_names import FINAL
from nnunet_cmc.data.format.splits import Fold, moved_case
from nnunet_cmc.evaluation.evaluated_cases import EvaluatedCases
from nnunet_cmc.evaluation.tables import text_table
from nnunet_cmc.utils.checkpoints import load_checkpoint
from nnunet_cmc.utils.files import visible
from nnunet_cmc.utils.formatting import counted, duration

UNKNOWN = "time unknown"


class Trial(NamedTuple):
    """Expected seconds of a system, by :mod:`nnunet_cmc.commands.trial_training`: of a training, and of a case."""

    training: float
    case: float


@dataclass(frozen=True)
class Run:
    """A system on one fold.

    Attributes:
        cases: to predict.
        predictions: folder of the predictions, which exists once all are made.
    """

    system: System
    fold: str
    cases: EvaluatedCases = field(hash=False)
    predictions: Path

    @property
    def name(self) -> str:
        """Name for the screen."""
        return f"{self.system.name}, fold {self.fold}"

    @property
    def number_of_cases(self) -> int:
        """Number of cases to predict."""
        return len(visible(self.cases.labels))

    @property
    def folder(self) -> Path:
        """Folder of the trained fold."""
        return self.system.model / f"fold_{self.fold}"

    @property
    def is_trained(self) -> bool:
        """Whether the training is finished."""
        return (self.folder / FINAL).is_file()

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint to resume the training from."""
        return has_checkpoint(self.folder)

    @property
    def is_predicted(self) -> bool:
        """Whether all cases are predicted, by the present checkpoint and from the present scans."""
        if not (self.is_trained and self.predictions.is_dir()):
            return False
        needed = max(file.stat().st_mtime for file in (self.folder / FINAL, self.cases.images))
        asked, made = ({file.name for file in visible(folder)} for folder in (self.cases.labels, self.predictions))
        return self.predictions.stat().st_mtime >= needed and asked <= made


def require_same_split(runs: Sequence[Run], folds: Mapping[str, Fold]) -> None:
    """Raise a ValueError if a finished training was of another split, as checkpoints of our trainers tell.

    Args:
        folds: as they are now, of runs that are evaluated on their validation cases.
    """
    for run in (run for run in runs if run.is_trained and run.fold in folds):
        now = vars(folds[run.fold])
        before = load_checkpoint(run.folder / FINAL, "remove it, and train again").get("cases")
        if before and (moved := moved_case({key: before.get(key, []) for key in now}, now)):
            case, was, is_now = moved
            raise ValueError(
                f"{run.folder} was trained on another split than fold {run.fold} is now: case {case} was in {was}, and "
                f"is in {is_now}, so its validation cases may have been trained on: restore splits_final.json, or "
                "remove that folder to train anew."
            )


def plan_text(runs: Sequence[Run], jobs: int, trials: Mapping[System, Trial]) -> str:
    """Describe what will be done, and how long it is expected to take."""
    rows = [["system", "fold", "training", "prediction"]]
    rows += [[run.system.name, run.fold, *map(_step, _states(run), _seconds(run, runs, trials))] for run in runs]
    return f"{text_table(rows)}\n\n{time_left(runs, jobs, trials)}"


def time_left(runs: Sequence[Run], jobs: int, trials: Mapping[System, Trial]) -> str:
    """Format how many trainings and predictions are left, and the expected time, from earlier ``runs`` and trials."""
    trainings, predictions = sum(not run.is_trained for run in runs), sum(not run.is_predicted for run in runs)
    if not trainings + predictions:
        return "Nothing is left to train or to predict."
    left = f"Left: {counted(trainings, 'training')}, {counted(predictions, 'prediction')}"
    times = [seconds for run in runs for seconds in _seconds(run, runs, trials)]
    known = [seconds for seconds in times if seconds is not None]
    if not any(known):
        return f"{left}; {UNKNOWN}."
    unknown = len(times) - len(known)
    more = f" and {counted(unknown, 'step')} of unknown length" if unknown else ""
    at_once = "one" if jobs == 1 else str(jobs)
    return f"{left}, about {duration(sum(known))} of work{more}, {at_once} at a time."


def _states(run: Run) -> tuple[str, str]:
    training = "done" if run.is_trained else "to continue" if run.has_begun else "to do"
    return training, "done" if run.is_predicted else "to do"


def training_seconds(run: Run) -> float | None:
    """Estimate the seconds left of the training: 0 if done, None if no epoch of any fold of the system tells."""
    return 0.0 if run.is_trained else expected_seconds(run.folder)


def _seconds(run: Run, runs: Sequence[Run], trials: Mapping[System, Trial]) -> tuple[float | None, float | None]:
    """Estimate the seconds left of the training and of the prediction: 0 if done, None if unknown."""
    training, trial = training_seconds(run), trials.get(run.system)
    if training is None and trial is not None:
        training = trial.training
    if run.is_predicted:
        return training, 0.0
    finished = [other for other in runs if other.is_predicted]
    own = [other for other in finished if other.system == run.system]
    for per_case in (_seconds_per_case(own), [trial.case] if trial else [], _seconds_per_case(finished)):
        if per_case:
            return training, run.number_of_cases * median(per_case)
    return training, None


def _seconds_per_case(runs: Sequence[Run]) -> list[float]:
    return [seconds for run in runs if (seconds := seconds_per_case(run.predictions)) is not None]


def _step(state: str, seconds: float | None) -> str:
    if state == "done":
        return state
    return f"{state}, {UNKNOWN if seconds is None else f'about {duration(seconds)}'}"
