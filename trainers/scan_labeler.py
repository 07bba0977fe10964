"""Rounds of a training in which the network labels the unlabelled scans, whole."""

import os
import shutil
from collections.abc import Callable, Iterable
from math import isnan
from os.path import isdir, isfile, join

import blosc2
import numpy as np
import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.training.dataloading.nnunet_dataset import comp_blosc2_params
from tqdm import tqdm

from nnunet_cmc.data.format.preprocessed import UNFINISHED
from nnunet_cmc.data.loading.cases import WEIGHT, UnlabeledDataset, weight_of
from nnunet_cmc.trainers.validation_dice import mean_dice
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels
from nnunet_cmc.utils.files import atomic_write


class ScanLabeler:
    """Label unlabelled scans at the times of :class:`WholeScanLabels`, with a network that it is given.

    Round 1 is written to ``pseudo_labels/round_1`` in the fold's folder, and so on, each label with its scan's weight.
    An interrupted training resumes with the labels it has made; a new training makes new ones.

    Args:
        times: of the rounds.
        output_folder: of the fold.
        log: writes a line into the training's log.

    Attributes:
        rounds: number of finished ones.
        labels: folder of the labels to train on; None before the first round, and where there is no unlabelled scan.
    """

    def __init__(self, times: WholeScanLabels, output_folder: str, log: Callable[[str], None]):
        self.times, self.log = times, log
        self.folders = [join(output_folder, "pseudo_labels", f"round_{i + 1}") for i in range(len(times.at))]
        self.rounds = 0
        self.labels: str | None = None

    def resume(self, epoch: int, epochs: int, removes: bool) -> None:
        """Go on with the labels of the rounds before ``epoch`` of so many.

        Args:
            removes: whether this process removes labels of later rounds: they are of an earlier training, or of epochs
                after the checkpoint.
        """
        due = self.times.rounds_before(epoch, epochs)
        self.rounds = max((i + 1 for i, folder in enumerate(self.folders[:due]) if isdir(folder)), default=0)
        self.labels = self.folders[self.rounds - 1] if self.rounds else None
        if removes:
            for later in self.folders[due:]:
                for folder in (later, later + UNFINISHED):
                    shutil.rmtree(folder, ignore_errors=True)

    def is_due(self, epoch: int, epochs: int) -> bool:
        """Tell whether a round is to be made before ``epoch`` of so many."""
        return self.rounds < self.times.rounds_before(epoch, epochs)

    def label(
        self,
        predictor: nnUNetPredictor,
        dataset: UnlabeledDataset,
        rank: int,
        ranks: int,
        after_each: Callable[[], None],
    ) -> None:
        """Make the next round.

        Args:
            predictor: of the labelling network.
            dataset: reads the scans, and their labels of the round before.
            rank, ranks: of this process; each labels its part.
            after_each: called after each scan, on all ranks.
        """
        cases, folder = dataset.identifiers, self.folders[self.rounds]
        if cases:
            self.log(
                f"Predicting pseudo-labels of {len(cases)} unlabelled scans; they are used for training from now on."
            )
            os.makedirs(folder + UNFINISHED, exist_ok=True)
            with tqdm(total=len(cases), desc="Labelling", unit="scan", disable=rank > 0) as bar:
                for start in range(0, len(cases), ranks):  # ranks wait for each other after each scan, not for hours
                    mine = cases[start : start + ranks][rank : rank + 1]
                    label_scans(predictor, dataset, mine, folder + UNFINISHED)
                    after_each()
                    bar.update(min(ranks, len(cases) - start))
            if rank == 0:
                os.rename(folder + UNFINISHED, folder)
            if ranks > 1:
                torch.distributed.barrier()
            self.labels = folder
            if self.rounds:  # in the first round every scan weighs 1
                self._report_weights(UnlabeledDataset(dataset.folders, folder))
        self.rounds += 1

    def _report_weights(self, dataset: UnlabeledDataset) -> None:
        weights = {case: weight_of(dataset.load_case(case)[1]) for case in dataset.identifiers}
        least = ", ".join(f"{case} {weights[case]:.2f}" for case in sorted(weights, key=weights.__getitem__)[:5])
        self.log(f"Weights of the scans: mean {sum(weights.values()) / len(weights):.3f}, least {least}.")


def label_scans(
    predictor: nnUNetPredictor,
    dataset: UnlabeledDataset,
    cases: Iterable[str],
    folder: str,
) -> None:
    """Write the predicted label ``(1, D, H, W)`` int16 of each preprocessed case to ``folder``, unless it is there.

    A case with a label of an earlier round gets a weight, in the same file. No other label is read, and one scan is in
    memory at a time.

    Args:
        predictor: of the labelling network.
        dataset: reads the images, and the labels of the round before.
    """
    for case in cases:
        file = join(folder, f"{case}_seg.b2nd")
        if not isfile(file):
            on_disk, before, _, _ = dataset.load_case(case)
            logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(np.array(on_disk[:])))
            label = logits.argmax(0, keepdim=True).to(torch.int16).cpu().numpy()
            weight = {} if before is None else {WEIGHT: stability(before[:], label, len(logits))}
            patch_size = predictor.configuration_manager.patch_size
            blocks, chunks = comp_blosc2_params(label.shape, patch_size, label.itemsize)
            with atomic_write(file) as temporary:
                blosc2.asarray(label, urlpath=str(temporary), blocks=blocks, chunks=chunks, meta=weight)


def stability(before: np.ndarray, after: np.ndarray, num_classes: int) -> float:
    """Compute the mean Dice over the foreground classes between two labels of a scan, in [0, 1].

    A class in neither label is left out, and a class in only one of them counts 0. Two labels without foreground agree:
    1.

    Args:
        before, after: ``(1, D, H, W)``, label values 0 to ``num_classes`` - 1.
    """
    confusion = np.zeros(num_classes**2, dtype=np.int64)
    for first, second in zip(before[0], after[0], strict=True):  # by slice: the sum below takes 8 bytes a voxel
        pairs = first.astype(np.int64) * num_classes + second
        confusion += np.bincount(pairs.ravel(), minlength=num_classes**2)
    dice = mean_dice(confusion.reshape(num_classes, num_classes))
    return 1.0 if isnan(dice) else dice
