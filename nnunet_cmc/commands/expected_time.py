"""Expected time of nnU-Net's trainings and predictions, from the logs and files of earlier ones."""

import re
from pathlib import Path
from statistics import median

from nnunet_cmc.data.format.checkpoint_names import BEST, FINAL, LATEST
from nnunet_cmc.utils.files import read_json, visible

EPOCH = re.compile(r"Epoch (\d+)\s*$", re.MULTILINE)
EPOCH_TIME = re.compile(r"Epoch (?:time:|\d+ of \d+,) ([\d.]+) s")  # in logs; on the screen, of our trainers
CHECKPOINTS = (FINAL, LATEST, BEST)  # that --c goes on from


def expected_seconds(fold: Path) -> float | None:
    """Estimate the rest of the training in this folder ``fold_X``; None until an epoch of some fold is over.

    It is the number of epochs left, by the log, times the median time of all folds' epochs.
    """
    left, seconds = epochs_left(fold), _seconds_per_epoch(fold)
    return None if left is None or seconds is None else left * seconds


def epochs_left(fold: Path) -> int | None:
    """Return how many epochs the training in this folder has left; None if no fold states their number."""
    if (fold / FINAL).is_file():
        return 0
    length = next((n for other in (fold, *sorted(fold.parent.glob("fold_*"))) if (n := _length(other))), None)
    if length is None:
        return None
    logs = [log for log in reversed(_logs(fold.parent)) if log.parent == fold] if has_checkpoint(fold) else []
    begun = next(filter(None, (EPOCH.findall(_text(log)) for log in logs)), [])  # the last log may end before an epoch
    return max(0, length - max(map(int, begun), default=0))


def has_checkpoint(fold: Path) -> bool:
    """Return whether there is a checkpoint that a training goes on from."""
    return any((fold / name).is_file() for name in CHECKPOINTS)


def seconds_per_case(predictions: Path) -> float | None:
    """Return the seconds per case of a finished prediction; None if its files do not tell.

    nnU-Net writes the arguments when it begins, and the label maps as they are predicted.
    """
    times = sorted(file.stat().st_mtime for file in visible(predictions))
    number = sum(file.suffix != ".json" for file in visible(predictions))
    return (times[-1] - times[0]) / number if number and len(times) > 1 else None


def _seconds_per_epoch(fold: Path) -> float | None:
    """Return the median over the epochs of all folds of this model."""
    epochs = [float(seconds) for log in _logs(fold.parent) for seconds in EPOCH_TIME.findall(_text(log))]
    return median(epochs) if epochs else None


def _length(fold: Path) -> int | None:
    """Read the number of epochs from what nnU-Net writes when a training begins."""
    if not (fold / "debug.json").is_file():
        return None
    try:
        content = read_json(fold / "debug.json", "remove it")
    except ValueError:  # half of it, of a training that begins or was killed
        return None
    length = str(content.get("num_epochs", "")) if isinstance(content, dict) else ""
    return int(length) if length.isdecimal() else None


def _logs(model: Path) -> list[Path]:
    return sorted(model.glob("fold_*/training_log_*.txt"), key=lambda log: log.stat().st_mtime)


def _text(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")
