"""nnU-Net's local logger, with the loss terms of CMC and each modality's Dice beside its own series."""

import csv
from collections.abc import Iterable
from os.path import join

import matplotlib.pyplot as plt
import numpy as np
from nnunetv2.training.logging.nnunet_logger import LocalLogger


def dice_of(modality: str) -> str:
    """Name of the series of the pseudo Dice from this modality alone."""
    return f"pseudo_dice/{modality}"


class TermLogger(LocalLogger):
    """Keeps one value per epoch of each of ``terms`` and of :func:`dice_of` each modality as well, and shows them."""

    def __init__(self, terms: Iterable[str], modalities: Iterable[str], verbose: bool = False):
        super().__init__(verbose)
        self.terms, self.modalities = list(terms), list(modalities)
        self.my_fantastic_logging.update({name: [] for name in (*self.terms, *map(dice_of, self.modalities))})

    def plot_progress_png(self, output_folder: str) -> None:
        """Write ``progress.png`` and, with the same numbers, ``progress.csv``."""
        self._save_csv(join(output_folder, "progress.csv"))
        log = self.my_fantastic_logging
        figure, panels = plt.subplots(5, 1, figsize=(12, 22), layout="constrained", sharex=True)
        losses, dice, terms, duration, rate = panels
        losses.plot(log["train_losses"], "b", label="training")
        losses.plot(log["val_losses"], "r", label="validation")
        dice.plot(log["mean_fg_dice"], "k:", label="all modalities")
        dice.plot(log["ema_fg_dice"], "k", label="moving average")
        for modality in self.modalities:
            dice.plot(log[dice_of(modality)], label=f"{modality} alone", marker=".")
        for term in self.terms:
            terms.plot(log[term], label=term, marker=".")
        terms.set_yscale("symlog", linthresh=1e-3)  # the weights span three decades, Dice losses are negative
        duration.plot(np.subtract(log["epoch_end_timestamps"], log["epoch_start_timestamps"]))
        rate.plot(log["lrs"])
        for axes, name in zip(panels, ("loss", "pseudo Dice", "term", "epoch [s]", "learning rate"), strict=True):
            axes.set_ylabel(name)
            axes.grid(alpha=0.3)
        for axes in (losses, dice, terms):
            axes.legend(loc="center left", bbox_to_anchor=(1, 0.5))
        rate.set_xlabel("epoch")
        rate.xaxis.get_major_locator().set_params(integer=True)
        figure.savefig(join(output_folder, "progress.png"))
        plt.close(figure)

    def _save_csv(self, file: str) -> None:
        """A row per epoch and a column per series; lists are spread as nnU-Net spreads them for Weights & Biases."""
        columns: dict[str, list] = {}
        for name, series in self.my_fantastic_logging.items():
            if any(isinstance(value, list) for value in series):
                columns |= {f"{name}/class_{i + 1}": list(values) for i, values in enumerate(zip(*series, strict=True))}
            else:
                columns[name] = series
        with open(file, "w", newline="", encoding="utf-8") as stream:
            writer = csv.writer(stream)
            writer.writerow(["epoch", *columns])
            writer.writerows([epoch, *row] for epoch, row in enumerate(zip(*columns.values(), strict=True)))
