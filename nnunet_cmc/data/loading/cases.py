"""Preprocessed cases of a training: labelled ones, and unlabelled ones, whose label is never opened."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import join

import blosc2
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
            file = join(self.pseudo_labels, f"{identifier}_seg.b2nd")
            try:
                label = _array(identifier, file, self.mmap_kwargs)
            except ValueError as error:
                raise ValueError(
                    f"Case {identifier}: its pseudo-label {file} is missing or damaged: remove the folder, and train "
                    "with --c, which predicts the pseudo-labels again."
                ) from error
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
