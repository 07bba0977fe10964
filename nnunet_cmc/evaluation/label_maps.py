"""Label maps of a dataset: their files, their classes and masks, and the modalities of their cases."""

from os import PathLike
from pathlib import Path

import numpy as np

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.utils.files import visible

NOT_STATED = "modality not stated"  # the group of cases whose modalities dataset.json does not state


def label_maps(folder: str | PathLike, ending: str) -> dict[str, Path]:
    """Return the file of each case in ``folder``, sorted. Raises ValueError if there is no such folder."""
    if not Path(folder).is_dir():
        raise ValueError(f"There is no folder {folder}: give the folder that holds the label maps.")
    return {file.name.removesuffix(ending): file for file in visible(folder) if file.name.endswith(ending)}


def classes_of(description: DatasetDescription) -> tuple[dict[str, Label], int | None]:
    """Return the label, or the labels of a region, of each foreground class, and the ignore label, if any."""
    labels: dict = dict(description.labels)
    ignore = labels.pop("ignore", None)
    return {name: label for name, label in labels.items() if label != 0}, ignore


def modalities_of(description: DatasetDescription, case: str) -> str:
    """Return the names of the modalities that ``case`` was scanned in, such as "CT+MR", or :data:`NOT_STATED`."""
    present = description.present_channels.get(case)
    return NOT_STATED if present is None else "+".join(description.modalities[channel] for channel in present)


def mask_of(labels: np.ndarray, label: Label) -> np.ndarray:
    """Return the boolean mask of a class or region in a label map."""
    return labels == label if isinstance(label, int) else np.isin(labels, label)
