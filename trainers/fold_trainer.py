"""Training on the cases of a fold: which are labelled, unlabelled and for validation, and what samples them."""

import os
from dataclasses import replace
from os.path import join

import numpy as np
import torch
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw, nnUNet_results
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.preprocessed import unlabeled_folder
from nnunet_cmc.data.format.splits import SPLITS, Fold, held_out_scans, load_fold, make_folds, splits_in_force
from nnunet_cmc.data.loading.cases import UnlabeledDataset, channels_of
from nnunet_cmc.data.loading.sampling import CaseSampler
from nnunet_cmc.trainers.checks import require_preprocessed, require_supported
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.utils.devices import require_device
from nnunet_cmc.utils.files import write_json
from nnunet_cmc.utils.variables import require_set

FOLDS = 5  # that are made where there are none, as nnU-Net does


class FoldTrainer(nnUNetTrainer):
    """nnU-Net's trainer with a labelled and an unlabelled sampler of the cases of its fold."""

    recipe: Recipe
    pseudo_labels: str | None = None  # folder of the pseudo-labels of whole scans, once they are made
    labeled: CaseSampler  # of the fold's labelled cases
    unlabeled_dataset: UnlabeledDataset

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net inspects this signature
    ):
        require_set(nnUNet_preprocessed, nnUNet_results)
        self.description = DatasetDescription.from_dict(dataset_json)
        require_supported(plans, configuration, self.description, type(self).__name__)
        require_device(device)
        require_preprocessed(plans, configuration)
        super().__init__(plans, configuration, fold, dataset_json, device)
        if self.is_ddp:  # nnU-Net assumes CUDA and one machine; torchrun tells each process its GPU
            index = int(os.environ.get("LOCAL_RANK") or self.local_rank)
            self.device = torch.device("cuda", index) if device.type == "cuda" else device

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return labelled and validation cases of the fold."""
        fold = self.fold_cases()
        return [case for case in fold.train if self._is_used(case)], [case for case in fold.val if self._is_used(case)]

    def fold_cases(self) -> Fold:
        """Return the fold; without any ``splits_final.json``, folds of all labelled cases are made as by ``split``.

        Raises:
            ValueError: see :func:`splits_in_force` and :func:`load_fold`; or there are no folds, and none can be made.
        """
        if self.fold == "all":
            train, val = super().do_split()
            return Fold(sorted(train), sorted(val), [])
        dataset = self.plans_manager.dataset_name
        if splits_in_force(dataset) is None:
            cases = self.dataset_class.get_identifiers(str(self.preprocessed_dataset_folder))
            folds = min(FOLDS, len({self.description.subject_of(case) for case in cases}))
            self.print_to_log_file(
                f"There is no splits_final.json of {dataset}, neither in nnUNet_preprocessed ({nnUNet_preprocessed}) "
                f"nor in nnUNet_raw ({nnUNet_raw.get() or 'not set'}): making {folds} folds by subject."
            )
            splits = make_folds(self._with_channels(cases), cases, folds, seed=0)
            write_json(join(self.preprocessed_dataset_folder_base, SPLITS), splits)
        file = splits_in_force(dataset)
        assert file is not None
        return load_fold(file, self.fold)

    def _with_channels(self, cases: list[str]) -> DatasetDescription:
        """Return the description with the channels of all ``cases``, whether or not dataset.json states them."""
        dataset = self.dataset_class(str(self.preprocessed_dataset_folder), cases)
        found = {case: channels_of(dataset, case, self.description) for case in cases}
        return replace(self.description, present_channels={**self.description.present_channels, **found})

    def extra_cases(self, fold: Fold) -> list[str]:
        """List the cases of ``imagesUn`` that ``fold`` does not leave out."""
        cases = UnlabeledDataset.get_identifiers(unlabeled_folder(str(self.preprocessed_dataset_folder)))
        return [case for case in cases if case not in fold.left_out]

    def _is_used(self, case: str) -> bool:
        if self.recipe.only_modality is None:
            return True
        dataset = self.dataset_class(str(self.preprocessed_dataset_folder), [case])
        return self.recipe.only_modality in channels_of(dataset, case, self.description)

    def get_samplers(self) -> tuple[CaseSampler, CaseSampler | None, list[str]]:
        """Return labelled sampler, unlabelled sampler (None if there is no case for it), and validation cases.

        Raises:
            ValueError: a case of the fold is not preprocessed, there is nothing to validate on, or a modality has no
                labelled case.
        """
        train, val = self.do_split()
        folder, fold = str(self.preprocessed_dataset_folder), self.fold_cases()
        hidden = fold.unlabeled
        file = "all cases" if self.fold == "all" else splits_in_force(self.plans_manager.dataset_name)
        self.print_to_log_file(
            f"Fold {self.fold} of {file}: {len(train)} labelled and {len(val)} validation cases, {len(hidden)} with a "
            "hidden label."
        )
        self._report_held_out(fold)
        folders = dict.fromkeys(hidden, folder)
        for case in self.extra_cases(fold):
            if case in {*train, *val, *hidden}:
                raise ValueError(f"Case {case} is in imagesTr and in imagesUn: rename one of them, preprocess again.")
            folders[case] = unlabeled_folder(folder)
        missing = sorted({*train, *val, *hidden} - set(self.dataset_class.get_identifiers(folder)))
        if missing:
            raise ValueError(
                f"Case {missing[0]} of fold {self.fold} is not in {folder} ({len(missing)} in all): preprocess "
                "again, or correct splits_final.json."
            )
        if not val:
            raise ValueError(f"Fold {self.fold} has no validation case: move one into val in splits_final.json.")
        labeled = CaseSampler(self.dataset_class(folder, train), self.description, self.recipe.only_modality)
        self.unlabeled_dataset = UnlabeledDataset(folders, self.pseudo_labels)
        unlabeled = CaseSampler(self.unlabeled_dataset, self.description, self.recipe.only_modality)
        self.labeled = labeled
        self._report(labeled, unlabeled)
        return labeled, unlabeled if unlabeled.cases and self._uses_unlabeled() else None, val

    def _uses_unlabeled(self) -> bool:
        return self.recipe.uses_unlabeled(have_labels=self.pseudo_labels is not None)

    def _report_held_out(self, fold: Fold) -> None:
        """Log which cases of ``imagesUn`` are scans of validation or test subjects, or excluded by the fold."""
        more = UnlabeledDataset.get_identifiers(unlabeled_folder(str(self.preprocessed_dataset_folder)))
        preprocessed = self.dataset_class.get_identifiers(self.preprocessed_dataset_folder)
        test = {*self.description.present_channels, *self.description.subjects} - {*preprocessed, *more}
        held_out = held_out_scans(self.description, fold.train, fold.val, test, more)
        if trained_on := sorted(set(held_out) - set(fold.left_out)):
            self.print_to_log_file(
                f"Transductive: {len(trained_on)} case(s) of imagesUn are scans of validation or test subjects, and "
                f"are trained on without a label: {', '.join(trained_on)}. `nnunet_cmc split --inductive` leaves them "
                "out."
            )
        if left_out := sorted(set(more) & set(fold.left_out)):
            self.print_to_log_file(f"Excluded by the fold (left_out): {', '.join(left_out)} of imagesUn.")

    def _report(self, labeled: CaseSampler, unlabeled: CaseSampler) -> None:
        for modality, name in enumerate(self.description.modalities):
            if self.recipe.only_modality not in (None, modality):
                continue
            count = labeled.count(modality)
            if not count:
                raise ValueError(
                    f"Modality {name} (channel {modality}) has no labelled case in fold {self.fold}: label a case of "
                    "it, move one from val to train in splits_final.json, or train with fold all."
                )
            self.print_to_log_file(f"{name}: {count} labelled and {unlabeled.count(modality)} unlabelled cases.")
        for term in self.recipe.terms:
            if term.loss.needs_registered and not np.triu(labeled.together(len(self.description.modalities)), 1).any():
                raise ValueError(
                    f"{type(self).__name__} needs labelled cases with several modalities on one grid, and fold "
                    f"{self.fold} has none: {term.loss.needs_registered}; train with -tr CMCTrainer."
                )
        if not unlabeled.cases and self.recipe.uses_unlabeled():
            self.print_to_log_file("There is no unlabelled case: training is supervised to its end.")
        elif not self._uses_unlabeled():
            self.print_to_log_file("Training is supervised now: unlabelled cases are not read.")
