"""Sampling of cases, and of partners for scans of a single modality."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.cases import channels_of

Channels = tuple[int, ...]  # the modalities of a case
RARELY = 0.01  # how readily a registered case is a partner, relative to a scan of a single modality


class CaseSampler:
    """Draw cases, and for a scan of a single modality a partner with another one.

    In the long run all cases are drawn equally often, as the first of a pair or as a partner, as far as pairs allow it:
    see :func:`draws_of`. Within that, a partner is of the same subject as often as possible.

    Args:
        dataset: nnU-Net's.
        description: states the modalities of the cases.
        only: the one modality to draw; cases without it are left out. All, if None.
    """

    def __init__(self, dataset: nnUNetBaseDataset, description: DatasetDescription, only: int | None = None):
        self.dataset = dataset
        self.present: dict[str, Channels] = {}
        for case in dataset.identifiers:
            channels = channels_of(dataset, case, description)
            if only is None or only in channels:
                self.present[case] = channels if only is None else (only,)
        self.cases = list(self.present)
        self.subject = {case: description.subject_of(case) for case in self.cases}
        self._numbers = Counter(self.present.values())
        self._draws = draws_of(self._numbers)
        shares = np.array([sum(self._draws[own].values()) / self._numbers[own] for own in self.present.values()])
        self._shares = shares / shares.sum()
        self._plans: dict[Channels, _PartnerPlan] = {}

    def count(self, modality: int) -> int:
        """Return the number of cases that have ``modality``."""
        return sum(number for channels, number in self._numbers.items() if modality in channels)

    def together(self, num_modalities: int) -> np.ndarray:
        """Tell which two of the modalities some case has, or which one: ``(M, M)`` bool."""
        found = np.zeros((num_modalities, num_modalities), dtype=bool)
        for channels in self._numbers:
            found[np.ix_(channels, channels)] = True
        return found

    def classes(self, num_modalities: int, num_classes: int) -> np.ndarray:
        """Tell which classes some case of each modality shows, from the properties of all: ``(M, K)`` bool."""
        found = np.zeros((num_modalities, num_classes), dtype=bool)
        for case, channels in self.present.items():
            locations = self.dataset.load_case(case)[3]["class_locations"]
            found[np.ix_(channels, [label for label, voxels in locations.items() if len(voxels)])] = True
        return found

    def draw(self) -> str:
        """Draw a case, the first of a pair or a pair by itself (numpy's global generator)."""
        return self.cases[np.random.choice(len(self.cases), p=self._shares)]

    def draw_partner(self, case: str) -> tuple[str, int] | None:
        """Draw a partner of ``case``, a scan of one modality, and the partner's other modality.

        None if ``case`` has several modalities, or no case has another one.
        """
        own = self.present[case]
        if own in self._draws[own]:
            return None
        if own not in self._plans:
            partners = {
                (other, modality): self._draws[own][channels] / self._numbers[channels] / len({*channels} - {*own})
                for other, channels in self.present.items()
                for modality in {*channels} - {*own}
            }
            subjects = [self.subject[other] for other, channels in self.present.items() if channels == own]
            self._plans[own] = _PartnerPlan(subjects, partners, [self.subject[other] for other, _ in partners])
        return self._plans[own].draw(self.subject[case])


def draws_of(numbers: Mapping[Channels, int]) -> dict[Channels, dict[Channels, float]]:
    """Compute how often a case with these modalities is drawn first, and a case with those is its partner.

    All cases are to be drawn equally often, but a pair has two modalities: a symmetric matrix of pairs is scaled until
    its sums are as close to the numbers of cases as pairs allow (Sinkhorn & Knopp 1967). So scans of the modality with
    fewer scans are drawn more often. Registered cases (with several modalities) are pairs by themselves, for half of
    their draws at least; in the other half they are partners where scans of a single modality are too few for it.

    Args:
        numbers: modalities -> number of cases that have exactly these.

    Returns:
        modalities of the first case -> modalities of the partner -> draws; the same ones, if there is no partner.
    """
    single = np.array([len(channels) == 1 for channels in numbers], dtype=bool)
    alone = np.eye(len(numbers), dtype=bool)
    pairs = np.where(single[:, None] & single, 1.0, RARELY) * (single[:, None] | single) * ~alone
    pairs += alone * (~single | ~pairs.any(1))
    counts = np.array([*numbers.values()], dtype=float)
    wanted = np.where(single, counts, counts / 2)
    for _ in range(100):
        scale = np.sqrt(wanted / pairs.sum(1))
        pairs *= scale[:, None] * scale
    pairs += alone * np.where(single, 0.0, counts / 2)
    # of two single scans each is the first one alike often; of a single and a registered one it is the single one
    first = pairs * np.where(single[:, None] & single & ~alone, 0.5, single[:, None] | alone)
    return {
        own: {other: draws for other, draws in zip(numbers, row, strict=True) if draws}
        for own, row in zip(numbers, first, strict=True)
    }


class _PartnerPlan:
    """Draw partners for scans of one modality: each by its share and, within that, of the same subject if possible.

    Pairs of one subject get the largest joint distribution whose marginals do not exceed the shares; the rest up to
    the shares is drawn independently.

    Args:
        subjects: of all scans of the one modality, with repetition.
        partners: case and its other modality -> its share.
        of: the subject of each partner.
    """

    def __init__(self, subjects: Sequence[str], partners: Mapping[tuple[str, int], float], of: Sequence[str]):
        self.partners = list(partners)
        self.shares = np.array([*partners.values()]) / sum(partners.values())
        here = {subject: number / len(subjects) for subject, number in Counter(subjects).items()}
        there: dict[str, float] = defaultdict(float)
        self.of_subject: dict[str, list[int]] = defaultdict(list)
        for i, subject in enumerate(of):
            there[subject] += self.shares[i]
            self.of_subject[subject].append(i)
        common = {subject: min(here[subject], there[subject]) for subject in here.keys() & there.keys()}
        self.same_subject = {subject: share / here[subject] for subject, share in common.items()}
        others = self.shares * [1 - common.get(subject, 0.0) / there[subject] for subject in of]
        self.others = others / others.sum() if others.sum() > 1e-9 else None

    def draw(self, subject: str) -> tuple[str, int]:
        """Draw a partner and its modality for a scan of ``subject``."""
        if self.others is None or np.random.uniform() < self.same_subject.get(subject, 0.0):
            mine = self.of_subject[subject]
            return self.partners[np.random.choice(mine, p=self.shares[mine] / self.shares[mine].sum())]
        return self.partners[np.random.choice(len(self.partners), p=self.others)]
