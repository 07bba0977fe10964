"""A training that labels its unlabelled scans whole, in rounds, if its recipe says so."""

import os
import shutil
from os.path import isdir, join

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from nnunet_cmc.data.loading.cases import UNFINISHED, weight_of
from nnunet_cmc.trainers.moving_average import MovingAverage
from nnunet_cmc.trainers.resumable_trainer import ResumableTrainer
from nnunet_cmc.trainers.whole_scan_labels import label_scans


class LabelingTrainer(ResumableTrainer):
    """Predict the unlabelled scans when :class:`WholeScanLabels` says, and go on with loaders that read the labels.

    The average of the weights predicts them: see :class:`WholeScanLabels`.

    Those of round 1 are written to ``pseudo_labels/round_1`` in the fold's folder, and so on, each with the scan's
    weight. A training that is interrupted goes on with those that are there; a new one makes new ones.
    """

    rounds = 0  # that were made
    average: MovingAverage | None  # there, if scans are labelled

    def _labels_folder(self, number: int) -> str:
        return join(self.output_folder, "pseudo_labels", f"round_{number}")

    def _rounds_due(self) -> int:
        """Return the number of rounds that this epoch learns from."""
        labels = self.recipe.whole_scan_labels
        return 0 if labels is None else labels.rounds_before(self.current_epoch, self.num_epochs)

    def on_train_start(self) -> None:
        """Start as nnU-Net does, with the labels of the training that is continued."""
        if self.recipe.whole_scan_labels is not None:
            folders = [self._labels_folder(i + 1) for i in range(len(self.recipe.whole_scan_labels.at))]
            due = self._rounds_due()
            self.rounds = max((i + 1 for i, folder in enumerate(folders[:due]) if isdir(folder)), default=0)
            self.pseudo_labels = self._labels_folder(self.rounds) if self.rounds else None
            if self.local_rank == 0:
                for later in folders[due:]:  # of an earlier training, or of epochs after the checkpoint
                    for folder in (later, later + UNFINISHED):
                        shutil.rmtree(folder, ignore_errors=True)
        super().on_train_start()

    def on_epoch_start(self) -> None:
        """Start as nnU-Net does; before the first epoch that learns from them, the labels of a round are made."""
        while self.rounds < self._rounds_due():
            if self.unlabeled_dataset.identifiers:
                self._label_unlabeled_scans(self.rounds + 1)
                if self.rounds:  # after the first round every scan weighs 1
                    self._report_weights()
            self.rounds += 1
        super().on_epoch_start()

    def _label_unlabeled_scans(self, number: int) -> None:
        cases = self.unlabeled_dataset.identifiers
        self.print_to_log_file(f"Labelling {len(cases)} unlabelled scans, from which the training learns now.")
        self.enter_epoch()
        assert self.average is not None, "a recipe that labels whole scans has an average"
        labels = self._labels_folder(number)
        os.makedirs(labels + UNFINISHED, exist_ok=True)
        predictor = nnUNetPredictor(use_mirroring=False, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            self.average.module, self.plans_manager, self.configuration_manager, None, self.dataset_json,
            type(self).__name__, None,
        )  # fmt: skip
        rank, ranks = (self.local_rank, torch.distributed.get_world_size()) if self.is_ddp else (0, 1)
        with tqdm(total=len(cases), desc="Labelling", unit="scan", disable=rank > 0) as bar:
            for start in range(0, len(cases), ranks):  # ranks wait for each other after each scan, not for hours
                mine = cases[start : start + ranks][rank : rank + 1]
                label_scans(predictor, self.unlabeled_dataset, mine, labels + UNFINISHED)
                self._exit_if_terminated()
                bar.update(min(ranks, len(cases) - start))
        if rank == 0:
            os.rename(labels + UNFINISHED, labels)
        if self.is_ddp:
            torch.distributed.barrier()
        self.pseudo_labels = labels
        self.close_loaders()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()

    def _report_weights(self) -> None:
        cases = self.unlabeled_dataset.identifiers
        weights = {case: weight_of(self.unlabeled_dataset.load_case(case)[1]) for case in cases}
        least = ", ".join(f"{case} {weights[case]:.2f}" for case in sorted(weights, key=weights.__getitem__)[:5])
        self.print_to_log_file(f"Weights of the scans: mean {sum(weights.values()) / len(cases):.3f}, least {least}.")
