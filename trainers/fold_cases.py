"""The cases of a fold: which are labelled, unlabelled and for validation, and what samples them."""

from collections.abc import Callable
from dataclasses import replace
from os.path import basename, dirname, join
from typing import NamedTuple

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.preprocessed import unlabeled_folder
from nnunet_cmc.data.format.splits import SPLITS, Fold, held_out_scans, load_fold, make_folds, splits_in_force
from nnunet_cmc.data.loading.cases import LabeledDataset, UnlabeledDataset, channels_of
from nnunet_cmc.data.loading.sampling import CaseSampler
from nnunet_cmc.trainers.recipe import Recipe
from nnunet_cmc.utils.files import write_json

FOLDS = 5  # that are made where there are none, as nnU-Net does


class Samplers(NamedTuple):
    """What a training draws from, and the validation cases.

    Attributes:
        labeled: of the fold's labelled cases.
        unlabeled: of the unlabelled ones; None if there is none, or none is read now.
        unlabeled_dataset: reads all unlabelled cases.
        val: validation cases.
    """

    labeled: CaseSampler
    unlabeled: CaseSampler | None
    unlabeled_dataset: UnlabeledDataset
    val: list[str]


class FoldCases:
    """Find the cases of a fold among the preprocessed ones.

    Args:
        fold: its number, or ``all`` for all labelled cases.
        folder: of the preprocessed cases of a configuration.
        description: of the dataset.
        recipe: of the training.
        log: writes a line into the training's log.
    """

    def __init__(
        self,
        fold: int | str,
        folder: str,
        description: DatasetDescription,
        recipe: Recipe,
        log: Callable[[str], None],
    ):
        self.fold, self.folder, self.description, self.recipe, self.log = fold, folder, description, recipe, log
        self.dataset_name = basename(dirname(folder))

    def train_and_val(self) -> tuple[list[str], list[str]]:
        """Return labelled and validation cases of the fold, without those that a recipe of one modality cannot use."""
        fold = self.read()
        return [case for case in fold.train if self._is_used(case)], [case for case in fold.val if self._is_used(case)]

    def read(self) -> Fold:
        """Return the fold; without any ``splits_final.json``, folds of all labelled cases are made as by ``split``.

        Raises:
            ValueError: see :func:`splits_in_force` and :func:`load_fold`; or there are no folds, and none can be made.
        """
        cases = sorted(LabeledDataset.get_identifiers(self.folder))
        if self.fold == "all":
            return Fold(cases, cases, [])
        if splits_in_force(self.dataset_name) is None:
            folds = min(FOLDS, len({self.description.subject_of(case) for case in cases}))
            self.log(
                f"There is no splits_final.json of {self.dataset_name}, neither in nnUNet_preprocessed "
                f"({nnUNet_preprocessed}) nor in nnUNet_raw ({nnUNet_raw.get() or 'not set'}): making {folds} folds by "
                "subject."
            )
            splits = make_folds(self._with_channels(cases), cases, folds, seed=0)
            write_json(join(dirname(self.folder), SPLITS), splits)
        file = splits_in_force(self.dataset_name)
        assert file is not None
        return load_fold(file, int(self.fold))

    def _with_channels(self, cases: list[str]) -> DatasetDescription:
        """Return the description with the channels of all ``cases``, whether or not dataset.json states them."""
        dataset = LabeledDataset(self.folder, cases)
        found = {case: channels_of(dataset, case, self.description) for case in cases}
        return replace(self.description, present_channels={**self.description.present_channels, **found})

    def extra(self, fold: Fold) -> list[str]:
        """List the cases of ``imagesUn`` that ``fold`` does not leave out."""
        cases = UnlabeledDataset.get_identifiers(unlabeled_folder(self.folder))
        return [case for case in cases if case not in fold.left_out]

    def _is_used(self, case: str) -> bool:
        if self.recipe.only_modality is None:
            return True
        dataset = LabeledDataset(self.folder, [case])
        return self.recipe.only_modality in channels_of(dataset, case, self.description)

    def samplers(self, pseudo_labels: str | None) -> Samplers:
        """Make the samplers of the fold, and write into the log what they draw from.

        Args:
            pseudo_labels: folder of the pseudo-labels of whole scans, once there are any.

        Raises:
            ValueError: a case of the fold is not preprocessed, there is nothing to validate on, or a modality has no
                labelled case.
        """
        (train, val), fold = self.train_and_val(), self.read()
        hidden = fold.unlabeled
        file = "all cases" if self.fold == "all" else splits_in_force(self.dataset_name)
        self.log(
            f"Fold {self.fold} of {file}: {len(train)} labelled and {len(val)} validation cases, {len(hidden)} with a "
            "hidden label."
        )
        self._report_held_out(fold)
        folders = dict.fromkeys(hidden, self.folder)
        for case in self.extra(fold):
            if case in {*train, *val, *hidden}:
                raise ValueError(f"Case {case} is in imagesTr and in imagesUn: rename one of them, preprocess again.")
            folders[case] = unlabeled_folder(self.folder)
        missing = sorted({*train, *val, *hidden} - set(LabeledDataset.get_identifiers(self.folder)))
        if missing:
            raise ValueError(
                f"Case {missing[0]} of fold {self.fold} is not in {self.folder} ({len(missing)} in all): preprocess "
                "again, or correct splits_final.json."
            )
        if not val:
            raise ValueError(f"Fold {self.fold} has no validation case: move one into val in splits_final.json.")
        labeled = CaseSampler(LabeledDataset(self.folder, train), self.description, self.recipe.only_modality)
        unlabeled_dataset = UnlabeledDataset(folders, pseudo_labels)
        unlabeled = CaseSampler(unlabeled_dataset, self.description, self.recipe.only_modality)
        self._report(labeled, unlabeled)
        reads = self.recipe.uses_unlabeled(have_labels=pseudo_labels is not None)
        if not unlabeled.cases and self.recipe.uses_unlabeled():
            self.log("There is no unlabelled case: training is supervised to its end.")
        elif not reads:
            self.log("Training is supervised now: unlabelled cases are not read.")
        return Samplers(labeled, unlabeled if unlabeled.cases and reads else None, unlabeled_dataset, val)

    def _report_held_out(self, fold: Fold) -> None:
        """Log which cases of ``imagesUn`` are scans of validation or test subjects, or excluded by the fold."""
        more = UnlabeledDataset.get_identifiers(unlabeled_folder(self.folder))
        preprocessed = LabeledDataset.get_identifiers(self.folder)
        test = {*self.description.present_channels, *self.description.subjects} - {*preprocessed, *more}
        held_out = held_out_scans(self.description, fold.train, fold.val, test, more)
        if trained_on := sorted(set(held_out) - set(fold.left_out)):
            self.log(
                f"Transductive: {len(trained_on)} case(s) of imagesUn are scans of validation or test subjects, and "
                f"are trained on without a label: {', '.join(trained_on)}. `nnunet_cmc split --inductive` leaves them "
                "out."
            )
        if left_out := sorted(set(more) & set(fold.left_out)):
            self.log(f"Excluded by the fold (left_out): {', '.join(left_out)} of imagesUn.")

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
            self.log(f"{name}: {count} labelled and {unlabeled.count(modality)} unlabelled cases.")
