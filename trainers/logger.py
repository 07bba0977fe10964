"""nnU-Net's local logger with further series."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from math import isnan
from os.path import join

import matplotlib.pyplot as plt
import numpy as np
from nnunetv2.training.logging.nnunet_logger import LocalLogger

from nnunet_cmc.utils.files import atomic_write, save_figure

LINEAR = ("similarity",)  # panels whose values share one scale


def dice_of(modality: str) -> str:
    """Return the name of the series of the pseudo Dice from this modality alone."""
    return f"pseudo_dice/{modality}"


def pseudo_foreground_of(modality: str) -> str:
    """Return the name of the series of the foreground share in the pseudo-labels of this modality's scans."""
    return f"pseudo_foreground/{modality}"


class SeriesLogger(LocalLogger):
    """Keep and plot further series of one value per epoch, among them :func:`dice_of` each modality.

    Args:
        panels: name of a panel of ``progress.png`` -> names of its series.
        modalities: names of the modalities.
    """

    def __init__(self, panels: Mapping[str, Sequence[str]], modalities: Iterable[str], verbose: bool = False):
        super().__init__(verbose)
        self.panels, self.modalities = dict(panels), list(modalities)
        names = [*(name for panel in self.panels.values() for name in panel), *map(dice_of, self.modalities)]
        self.my_fantastic_logging.update({name: [] for name in names})

    def log(self, key: str, value, epoch: int) -> None:
        """Log as nnU-Net does; an epoch that was interrupted is logged again when it is resumed.

        An epoch whose validation patches show no class has no Dice, and leaves its moving average as it is: nnU-Net's
        would be NaN from then on, and no later checkpoint the best.
        """
        series = self.my_fantastic_logging[key]
        del series[epoch:]
        if key == "ema_fg_dice" and isnan(value):
            value = series[-1] if series else 0.0
        super().log(key, value, epoch)

    def plot_progress_png(self, output_folder: str) -> None:
        """Write ``progress.png`` and, with the same numbers, ``progress.csv``; dots make a single epoch visible."""
        self._save_csv(join(output_folder, "progress.csv"))
        log = self.my_fantastic_logging
        rows = 4 + len(self.panels)
        figure, axes = plt.subplots(rows, 1, figsize=(12, 4 * rows), layout="constrained", sharex=True)
        losses, dice, *own, duration, rate = axes
        losses.plot(log["train_losses"], "b.-", label="training")
        losses.plot(log["val_losses"], "r.-", label="validation")
        dice.plot(log["mean_fg_dice"], "k.:", label="all modalities")
        dice.plot(log["ema_fg_dice"], "k.-", label="moving average")
        for modality in self.modalities:
            dice.plot(log[dice_of(modality)], label=f"{modality} alone", marker=".")
        for panel, (title, names) in zip(own, self.panels.items(), strict=True):
            for name in names:
                panel.plot(log[name], label=name.partition("/")[2] or name, marker=".")
            if title not in LINEAR:
                panel.set_yscale("symlog", linthresh=1e-3)  # weights span three decades, Dice losses are negative
        duration.plot(np.subtract(log["epoch_end_timestamps"], log["epoch_start_timestamps"]), ".-")
        rate.plot(log["lrs"], ".-")
        for panel, name in zip(axes, ("loss", "pseudo Dice", *self.panels, "epoch [s]", "learning rate"), strict=True):
            panel.set_ylabel(name)
            panel.grid(alpha=0.3)
        for panel in (losses, dice, *own):
            panel.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        rate.set_xlabel("epoch")
        rate.xaxis.get_major_locator().set_params(integer=True)
        save_figure(figure, join(output_folder, "progress.png"))
        plt.close(figure)

    def _save_csv(self, file: str) -> None:
        """Write a row per epoch and a column per series; lists are spread as nnU-Net does for Weights & Biases."""
        columns: dict[str, list] = {}
        for name, series in self.my_fantastic_logging.items():
            if any(isinstance(value, list) for value in series):
                columns |= {f"{name}/class_{i + 1}": list(values) for i, values in enumerate(zip(*series, strict=True))}
            else:
                columns[name] = series
        with atomic_write(file) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["epoch", *columns])
            writer.writerows([epoch, *row] for epoch, row in enumerate(zip(*columns.values(), strict=True)))
