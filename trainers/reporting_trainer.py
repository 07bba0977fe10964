"""A training that prints one line per epoch, and writes the details into its log."""

import time
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from statistics import fmean

from nnunet_cmc.data.format.checkpoint_names import BEST, FINAL
from nnunet_cmc.trainers.logger import dice_of
from nnunet_cmc.trainers.resumable_trainer import ResumableTrainer
from nnunet_cmc.utils.formatting import duration

FEWEST_EPOCHS = 10  # of a training that warns: in shorter ones a Dice of 0 tells nothing
TRAINED = (FINAL, BEST, "progress.png", "progress.csv")


class ReportingTrainer(ResumableTrainer):
    """Write messages during an epoch into ``training_log_*.txt`` only, and print one line after it.

    After each epoch rank 0 prints :func:`epoch_line`, and once a warning for each modality that is not learned; at the
    end, what was written.
    """

    _is_quiet = False
    _trained: Sequence[str] = ()  # files of the training; none where a checkpoint is only validated
    _epoch_started: float
    _epoch_seconds: list[float]  # of the epochs of this run, with checkpoints and ``progress.png``

    def print_to_log_file(self, *args, also_print_to_console: bool = True, add_timestamp: bool = True) -> None:
        """Write to the log as nnU-Net does, and on the screen unless an epoch runs or loaders are rebuilt."""
        shown = also_print_to_console and not self._is_quiet
        super().print_to_log_file(*args, also_print_to_console=shown, add_timestamp=add_timestamp)

    def on_train_start(self) -> None:
        """Start as nnU-Net does, with messages on the screen."""
        self._is_quiet, self._epoch_seconds, self._trained = False, [], TRAINED
        super().on_train_start()

    def print_plans(self) -> None:
        """Write the plans, which are long, to the log alone."""
        self._is_quiet = True
        super().print_plans()
        self._is_quiet = False

    def get_dataloaders(self):
        """Load as nnU-Net does; loaders rebuilt for pseudo-labels print nothing."""
        self._is_quiet = self.dataloader_train is not None
        loaders = super().get_dataloaders()
        self._is_quiet = False
        return loaders

    def on_epoch_start(self) -> None:
        """Start as nnU-Net does, and write messages to the log alone from here on."""
        super().on_epoch_start()
        self._is_quiet, self._epoch_started = True, time.monotonic()

    def on_epoch_end(self) -> None:
        """End as nnU-Net does, then print the epoch's line on the screen."""
        best = self._best_ema
        super().on_epoch_end()
        self._is_quiet = False
        self._epoch_seconds.append(time.monotonic() - self._epoch_started)
        if self.local_rank == 0:
            self._report_epoch(is_best=best is None or self._best_ema > best)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Validate as nnU-Net does, and print what this run wrote."""
        super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            written = [name for name in (*self._trained, "validation") if Path(self.output_folder, name).exists()]
            print(f"Written: {self.output_folder} ({', '.join(written)})", flush=True)

    def _save_and_exit(self):
        self._is_quiet = False  # the reason is printed
        super()._save_and_exit()

    def _report_epoch(self, is_best: bool) -> None:
        """Report the epoch that ended last."""
        only = self.recipe.only_modality
        names = [name for m, name in enumerate(self.description.modalities) if only in (None, m)]
        alone = {name: self.logger.get_value(dice_of(name), step=None) for name in names}
        line = epoch_line(
            self.current_epoch,
            self.num_epochs,
            self._epoch_seconds,
            self.logger.get_value("train_losses", step=-1),
            self.logger.get_value("mean_fg_dice", step=-1),
            {name: series[-1] for name, series in alone.items()},
            is_best,
        )
        print(line, flush=True)
        for name in names:
            if is_not_learned(alone[name], self.num_epochs):
                self.print_to_log_file(
                    f"WARNING: the Dice of {name} alone is still 0 after {self.current_epoch} of {self.num_epochs} "
                    f"epochs: see how many labelled cases of {name} fold {self.fold} has (at the start of the log), "
                    "whether their labels lie on the scans and the scans show the classes (`nnunet_cmc inspect`), and, "
                    "where the Dice of all modalities is 0 as well, the labels and the learning rate."
                )


def epoch_line(
    epoch: int,
    epochs: int,
    seconds: Sequence[float],
    loss: float,
    dice: float,
    alone: Mapping[str, float],
    is_best: bool,
) -> str:
    """Format the line that is printed after an epoch.

    Args:
        epoch: its number, from 1 to ``epochs``.
        seconds: durations of the epochs of this run, this one last; their mean gives the time left.
        loss: of the training.
        dice: on validation patches, from all modalities of each.
        alone: modality -> Dice from it alone; NaN, printed as -, if no validation patch of the epoch shows a class.
        is_best: whether the moving average of ``dice`` is higher than ever.
    """
    left = f", {duration(fmean(seconds) * (epochs - epoch))} left" if epoch < epochs else ""
    each = ", ".join(f"{name} {'-' if isnan(value) else format(value, '.2f')}" for name, value in alone.items())
    best = ", new best" if is_best else ""
    return f"Epoch {epoch} of {epochs}, {seconds[-1]:.1f} s{left}: loss {loss:.2f}, Dice {dice:.2f} ({each}){best}"


def is_not_learned(dice: Sequence[float], epochs: int) -> bool:
    """Tell whether a tenth of 10 epochs or more just ended, and ``dice``, one value per epoch, is still 0.

    NaN, for epochs whose validation patches show no class, is ignored.
    """
    known = [value for value in dice if not isnan(value)]
    is_time = epochs >= FEWEST_EPOCHS and len(dice) == -(-epochs // 10)
    return is_time and bool(known) and not any(known)
