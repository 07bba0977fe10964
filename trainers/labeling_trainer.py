"""A training that predicts pseudo-labels of whole scans in rounds, if its recipe says so."""

import os
import shutil
from os.path import isdir, join

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from tqdm import tqdm

from nnunet_cmc.data.format.preprocessed import UNFINISHED
from nnunet_cmc.data.loading.cases import weight_of
from nnunet_cmc.trainers.moving_average import MovingAverage
from nnunet_cmc.trainers.resumable_trainer import ResumableTrainer
from nnunet_cmc.trainers.whole_scan_labels import label_scans


class LabelingTrainer(ResumableTrainer):
    """Predict pseudo-labels of the unlabelled scans at the times of :class:`WholeScanLabels`, and train on them.

    The moving average of the weights predicts them. Round 1 is written to ``pseudo_labels/round_1`` in the fold's
    folder, and so on, each label with its scan's weight. An interrupted training resumes with the labels it has made;
    a new training makes new ones.
    """

    rounds = 0  # number of finished ones
    average: MovingAverage | None  # None if the recipe labels no scans

    def _labels_folder(self, number: int) -> str:
        return join(self.output_folder, "pseudo_labels", f"round_{number}")

    def _rounds_due(self) -> int:
        """Return the number of rounds that must be finished before this epoch."""
        labels = self.recipe.whole_scan_labels
        return 0 if labels is None else labels.rounds_before(self.current_epoch, self.num_epochs)

    def on_train_start(self) -> None:
        """Start as nnU-Net does, with the pseudo-labels of the training that is resumed."""
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
        """Start as nnU-Net does, after making the pseudo-labels that this epoch is the first to train on."""
        while self.rounds < self._rounds_due():
            if self.unlabeled_dataset.identifiers:
                self._label_unlabeled_scans(self.rounds + 1)
                if self.rounds:  # in the first round every scan weighs 1
                    self._report_weights()
            self.rounds += 1
        super().on_epoch_start()

    def _label_unlabeled_scans(self, number: int) -> None:
        cases = self.unlabeled_dataset.identifiers
        self.print_to_log_file(
            f"Predicting pseudo-labels of {len(cases)} unlabelled scans; they are used for training from now on."
        )
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
