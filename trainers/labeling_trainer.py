"""A training that labels its unlabelled scans, once and whole, if its recipe says so."""

import os
import shutil
from math import inf
from os.path import isdir, join

import torch
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.data.loading.cases import UNFINISHED
from nnunet_cmc.trainers.resumable_trainer import ResumableTrainer
from nnunet_cmc.trainers.whole_scan_labels import label_scans


class LabelingTrainer(ResumableTrainer):
    """Predict the unlabelled scans when :class:`WholeScanLabels` says, and go on with loaders that read the labels.

    They are written to ``pseudo_labels`` in the fold's folder. A training that is interrupted goes on with those that
    are there; a new one makes new ones.
    """

    @property
    def _labels_folder(self) -> str:
        return join(self.output_folder, "pseudo_labels")

    def _first_epoch(self) -> float:
        """Return the first epoch that learns from the labels; infinity if the recipe has none."""
        labels = self.recipe.whole_scan_labels
        return inf if labels is None else labels.epoch(self.num_epochs)

    def on_train_start(self) -> None:
        """Start as nnU-Net does, with the labels of the training that is continued."""
        if self._first_epoch() <= self.current_epoch:
            self.pseudo_labels = self._labels_folder if isdir(self._labels_folder) else None
        elif self.recipe.whole_scan_labels is not None and self.local_rank == 0:
            for folder in (self._labels_folder, self._labels_folder + UNFINISHED):  # of an earlier training
                shutil.rmtree(folder, ignore_errors=True)
        super().on_train_start()

    def on_epoch_start(self) -> None:
        """As nnU-Net's; before the first epoch that learns from them, the labels are made."""
        if self.pseudo_labels is None and self._first_epoch() <= self.current_epoch:
            self._label_unlabeled_scans()
        super().on_epoch_start()

    def _label_unlabeled_scans(self) -> None:
        cases = self.unlabeled_dataset.identifiers
        if not cases:
            return
        self.print_to_log_file(f"Labelling {len(cases)} unlabelled scans, from which the rest of the training learns.")
        self.enter_epoch()
        unfinished = self._labels_folder + UNFINISHED
        os.makedirs(unfinished, exist_ok=True)
        predictor = nnUNetPredictor(use_mirroring=False, device=self.device, allow_tqdm=False)
        predictor.manual_initialization(
            self.bare_network, self.plans_manager, self.configuration_manager, None, self.dataset_json,
            type(self).__name__, None,
        )  # fmt: skip
        self.network.eval()
        if self.is_ddp:  # ranks have unlike numbers of cases, so they cannot tell each other of SIGTERM between them
            cases = cases[self.local_rank :: torch.distributed.get_world_size()]
            label_scans(predictor, self.unlabeled_dataset, cases, unfinished, lambda: None)
            torch.distributed.barrier()
        else:
            label_scans(predictor, self.unlabeled_dataset, cases, unfinished, self._exit_if_terminated)
        if self.local_rank == 0:
            os.rename(unfinished, self._labels_folder)
        if self.is_ddp:
            torch.distributed.barrier()
        self.pseudo_labels = self._labels_folder
        self.close_loaders()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
