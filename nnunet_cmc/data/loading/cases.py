"""Preprocessed cases of a training: labelled ones, and unlabelled ones, whose label is never opened."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import join

import blosc2
import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.preprocessed import ADDED_PROPERTIES, UNFINISHED
from nnunet_cmc.utils.pickles import IN_PROPERTIES, RestrictedUnpickler

WEIGHT = "weight"  # entry of the metadata of a pseudo-label's file: the weight of its scan


class LabeledDataset(nnUNetDatasetBlosc2):
    """nnU-Net's dataset, but unpickles the properties of its cases without calling anything except numpy."""

    def load_case(self, identifier: str):
        """Return (image ``(M, D, H, W)`` on disk, label ``(1, D, H, W)`` on disk, None, properties).

        Raises:
            ValueError: a file is missing, damaged, or not from :class:`CMCPreprocessor`.
        """
        path = join(self.source_folder, identifier)
        image, label = (_array(identifier, path + ending, self.mmap_kwargs) for ending in (".b2nd", "_seg.b2nd"))
        return image, label, None, _properties(identifier, path + ".pkl", "class_locations")


class UnlabeledDataset(nnUNetDatasetBlosc2):
    """Cases of which only the image is opened, even if a label lies beside it.

    Args:
        folders: case -> the folder of its preprocessed files; hidden labels lie among the labelled cases, scans
            without a label in a folder of their own.
        pseudo_labels: folder of labels to read in place of the cases' own, if any.
    """

    def __init__(self, folders: dict[str, str], pseudo_labels: str | None = None):
        super().__init__("", list(folders))
        self.folders, self.pseudo_labels = folders, pseudo_labels

    def load_case(self, identifier: str):
        """Return (image ``(M, D, H, W)`` on disk, pseudo-label or None, None, properties that depend on no label).

        Raises:
            ValueError: see :class:`LabeledDataset`.
        """
        path = join(self.folders[identifier], identifier)
        properties = _properties(identifier, path + ".pkl")
        image, label = _array(identifier, path + ".b2nd", self.mmap_kwargs), None
        if self.pseudo_labels is not None:
            label = _array(identifier, join(self.pseudo_labels, f"{identifier}_seg.b2nd"), self.mmap_kwargs)
        return image, label, None, {key: properties[key] for key in ADDED_PROPERTIES}

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        """List the cases preprocessed into ``folder``, sorted; none where there is no such folder.

        Raises:
            ValueError: the preprocessing was interrupted, so that cases may be missing.
        """
        if os.path.isdir(folder + UNFINISHED):
            raise ValueError(f"Preprocessing into {folder} was interrupted: run nnUNetv2_preprocess again.")
        return sorted(nnUNetDatasetBlosc2.get_identifiers(folder)) if os.path.isdir(folder) else []


class CaseSampler:
    """Draw cases, and for a scan of a single modality a partner scan of another one.

    In the long run all cases are drawn equally often, as the first of a pair or as a partner, as far as pairs allow it:
    a pair has a scan of each modality, so scans of the modality with fewer scans are drawn more often. Within that, a
    partner is of the same subject as often as possible.

    Args:
        dataset: nnU-Net's.
        description: states the modalities of the cases.
        only: the one modality to draw; cases without it are left out. All, if None.
    """

    def __init__(self, dataset: nnUNetBaseDataset, description: DatasetDescription, only: int | None = None):
        self.dataset = dataset
        self.present = {}
        for case in dataset.identifiers:
            channels = channels_of(dataset, case, description)
            if only is None or only in channels:
                self.present[case] = channels if only is None else (only,)
        self.cases = list(self.present)
        self.subject = {case: description.subject_of(case) for case in self.cases}
        self._with_modality: dict[int, list[str]] = defaultdict(list)
        for case, channels in self.present.items():
            for channel in channels:
                self._with_modality[channel].append(case)
        self._alone = {
            modality: [case for case in cases if len(self.present[case]) == 1]
            for modality, cases in self._with_modality.items()
        }
        shares = self._shares_as_first()
        self._shares = shares / shares.sum() if len(shares) else shares
        self._plans: dict[tuple[int, int], _PartnerPlan] = {}

    def modalities(self) -> list[int]:
        """List the channels of all cases in ascending order."""
        return sorted(self._with_modality)

    def count(self, modality: int) -> int:
        """Return the number of cases that have ``modality``."""
        return len(self._with_modality.get(modality, ()))

    def together(self, num_modalities: int) -> np.ndarray:
        """Tell which two of the modalities some case has, or which one: ``(M, M)`` bool."""
        found = np.zeros((num_modalities, num_modalities), dtype=bool)
        for channels in set(self.present.values()):
            found[np.ix_(channels, channels)] = True
        return found

    def draw(self) -> str:
        """Draw a case, the first of a pair or a pair by itself (numpy's global generator)."""
        return self.cases[np.random.choice(len(self.cases), p=self._shares)]

    def draw_partner(self, case: str) -> tuple[str, int] | None:
        """Draw a partner of ``case``, a scan of one modality, and the partner's other modality.

        None if ``case`` has several modalities, or no case has another one.
        """
        others = self._partner_modalities(case)
        if not others:
            return None
        counts = np.array([len(self._candidates(m)) for m in others])
        modality = others[np.random.choice(len(others), p=counts / counts.sum())]
        own = self.present[case][0]
        if (own, modality) not in self._plans:
            self._plans[own, modality] = _PartnerPlan(
                [self.subject[c] for c in self._candidates(own)],
                {c: self.subject[c] for c in self._candidates(modality)},
            )
        return self._plans[own, modality].draw(self.subject[case]), modality

    def _partner_modalities(self, case: str) -> list[int]:
        channels = self.present[case]
        return [m for m in self.modalities() if m not in channels] if len(channels) == 1 else []

    def _candidates(self, modality: int) -> list[str]:
        """List the scans of only this modality or, without any, all cases that have it."""
        return self._alone[modality] or self._with_modality[modality]

    def _shares_as_first(self) -> np.ndarray:
        """Compute how often each case is drawn first; with its draws as a partner the sum is 1.

        Scans of single modalities are drawn half as first and half as partners. Cases of several modalities are
        partners for a modality without such scans, but keep at least half of their draws for themselves.
        """
        shares = dict.fromkeys(self.cases, 1.0)
        for modality in self.modalities():
            alone = self._alone[modality]
            others = [m for m in self.modalities() if m != modality] if alone else []
            partners = sum(len(self._candidates(m)) for m in others)
            first = 0.5 if any(self._alone[m] for m in others) else 1.0
            for case in alone:
                shares[case] = first
            for case in (c for m in others if not self._alone[m] for c in self._candidates(m)):
                shares[case] -= first * len(alone) / partners
        several = {case for case in self.cases if len(self.present[case]) > 1}
        return np.array([max(shares[case], 0.5) if case in several else shares[case] for case in self.cases])


class _PartnerPlan:
    """Draw partners for scans of one modality: each equally often and, within that, of the same subject if possible.

    Pairs of one subject get the largest joint distribution whose marginals do not exceed uniform ones; the rest up to
    uniform marginals is drawn independently.

    Args:
        subjects: of all scans of the one modality, with repetition.
        partners: candidate -> subject.
    """

    def __init__(self, subjects: list[str], partners: dict[str, str]):
        here, there = ({s: n / len(of) for s, n in Counter(of).items()} for of in (subjects, partners.values()))
        common = {s: min(here[s], there[s]) for s in here.keys() & there.keys()}
        self.same_subject = {s: share / here[s] for s, share in common.items()}
        self.partners = list(partners)
        self.of_subject: dict[str, list[str]] = defaultdict(list)
        for case, subject in partners.items():
            self.of_subject[subject].append(case)
        lacking = [(there[s] - common.get(s, 0.0)) / len(self.of_subject[s]) for s in partners.values()]
        self.others = np.array(lacking) / sum(lacking) if sum(lacking) > 1e-9 else None

    def draw(self, subject: str) -> str:
        """Draw a partner for a scan of ``subject``."""
        if self.others is None or np.random.uniform() < self.same_subject.get(subject, 0.0):
            mine = self.of_subject[subject]
            return mine[np.random.randint(len(mine))]
        return self.partners[np.random.choice(len(self.partners), p=self.others)]


def weight_of(label: blosc2.NDArray) -> float:
    """Return the weight of a case with this pseudo-label: 1, if the file does not state it."""
    return float(label.schunk.meta.get(WEIGHT, 1.0))


def channels_of(dataset: nnUNetBaseDataset, case: str, description: DatasetDescription) -> tuple[int, ...]:
    """Return the modalities of a case from dataset.json or, if not stated there, from preprocessing."""
    return description.present_channels.get(case) or tuple(dataset.load_case(case)[3]["present_channels"])


@contextmanager
def _readable(case: str, file: str) -> Iterator[None]:
    """Turn any error over a damaged file into a ValueError that names ``case`` and ``file``."""
    try:
        yield
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if not os.path.exists(file):
            reason = "it is missing"
        raise ValueError(f"Case {case}: {file} cannot be read ({reason}): preprocess the dataset again.") from error


def _array(case: str, file: str, mmap_kwargs: dict) -> blosc2.NDArray:
    with _readable(case, file):
        return blosc2.open(urlpath=file, mode="r", dparams={"nthreads": 1}, **mmap_kwargs)


def _properties(case: str, file: str, *more: str) -> dict:
    with _readable(case, file), open(file, "rb") as content:
        properties = RestrictedUnpickler(content, IN_PROPERTIES).load()
        if not isinstance(properties, dict) or not {*ADDED_PROPERTIES, *more} <= set(properties):
            raise ValueError("it was not preprocessed by CMCPreprocessor")
    return properties
