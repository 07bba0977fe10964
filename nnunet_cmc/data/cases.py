"""Preprocessed cases as training draws them: a stream of labelled ones and a stream of those whose label is closed."""

import os
from collections import defaultdict
from os.path import join

import blosc2
import numpy as np
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset, nnUNetDatasetBlosc2

from nnunet_cmc.data.presence import present_channels, subject_of


class UnlabeledDataset(nnUNetDatasetBlosc2):
    """Cases of which only the image is ever opened, whether a label lies beside it or not.

    Args:
        folders: case -> the folder of its preprocessed files; hidden labels lie among the labelled cases, scans
            without a label in a folder of their own.
    """

    def __init__(self, folders: dict[str, str]):
        super().__init__("", list(folders))
        self.folders = folders

    def load_case(self, identifier: str):
        """(image ``(M, D, H, W)`` on disk, None, None, the properties that no label went into)."""
        path = join(self.folders[identifier], identifier)
        data = blosc2.open(urlpath=path + ".b2nd", mode="r", dparams={"nthreads": 1}, **self.mmap_kwargs)
        properties = load_pickle(path + ".pkl")
        return data, None, None, {key: properties[key] for key in ("present_channels", "body_box")}

    @staticmethod
    def get_identifiers(folder: str) -> list[str]:
        """Cases preprocessed into ``folder``; none where there is no such folder."""
        return nnUNetDatasetBlosc2.get_identifiers(folder) if os.path.isdir(folder) else []


class Stream:
    """Cases to draw from, and for each one the cases that may be its partner in another modality."""

    def __init__(self, dataset: nnUNetBaseDataset, dataset_json: dict):
        self.dataset = dataset
        self.cases = list(dataset.identifiers)
        self.present = {case: self._present(case, dataset_json) for case in self.cases}
        self.subject = {case: subject_of(dataset_json, case) for case in self.cases}
        self._with_modality: dict[int, list[str]] = defaultdict(list)
        for case, channels in self.present.items():
            for channel in channels:
                self._with_modality[channel].append(case)

    def modalities(self) -> list[int]:
        """Channels that some case has, rising."""
        return sorted(self._with_modality)

    def count(self, modality: int) -> int:
        """Number of cases that have ``modality``."""
        return len(self._with_modality[modality])

    def draw(self) -> str:
        """A case, each as likely as any other (numpy's global generator)."""
        return self.cases[np.random.randint(len(self.cases))]

    def draw_partner(self, case: str) -> tuple[str, int] | None:
        """A case that shows a modality which ``case`` lacks, and that modality; of the same subject if there is one.

        None where no case has another modality.
        """
        lacking = [m for m in self.modalities() if m not in self.present[case]]
        if not lacking:
            return None
        modality = lacking[np.random.randint(len(lacking))]
        candidates = self._with_modality[modality]
        same_subject = [c for c in candidates if self.subject[c] == self.subject[case]]
        candidates = same_subject or candidates
        return candidates[np.random.randint(len(candidates))], modality

    def _present(self, case: str, dataset_json: dict) -> tuple[int, ...]:
        declared = present_channels(dataset_json, case)
        return declared or tuple(self.dataset.load_case(case)[3]["present_channels"])
