"""A case of a source dataset."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Case:
    """Scans on one common grid, with or without a label on it.

    Attributes:
        name: case identifier, unique in the dataset.
        subject: the patient; scans of one patient share it.
        images: volume file or folder of a DICOM series of each present channel; an absent modality has no entry.
        label: label file, or None for an unlabelled scan.
        test: whether the case belongs to the test part.
        label_values: value in the dataset of each value that the label file may have (the background 0 need not be
            named); None where the label has the dataset's values already.
        grid: volume onto whose grid the images are resampled by their world coordinates; None where they share one.
    """

    name: str
    subject: str
    images: Mapping[int, Path]
    label: Path | None = None
    test: bool = False
    label_values: Mapping[int, int] | None = None
    grid: Path | None = None

    @property
    def grid_source(self) -> Path:
        """Return the volume whose grid the case is on."""
        return self.grid or next(iter(self.images.values()))
