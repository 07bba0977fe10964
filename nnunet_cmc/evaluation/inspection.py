"""Inspection of a raw dataset before training: grids, intensities and volumes of its cases, and tables of them."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import by_modality
from nnunet_cmc.data.reading.grid import Grid, read_grid
from nnunet_cmc.data.reading.raw_case import empty_case, require_one_grid
from nnunet_cmc.data.reading.raw_dataset import cases_of_part
from nnunet_cmc.data.reading.voxels import read_voxels
from nnunet_cmc.evaluation.case_gallery import Entry, Row
from nnunet_cmc.evaluation.case_pictures import CaseFiles, CasePictures
from nnunet_cmc.evaluation.label_maps import mask_of
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import percentiles
from nnunet_cmc.evaluation.tables import text_table
from nnunet_cmc.utils.formatting import dimensions, millimetres

PARTS = {"Tr": "training", "Un": "unlabelled", "Ts": "test"}
NOTE = "Numbers with a range in brackets are medians over cases."


class RawCase(NamedTuple):
    """A case of the dataset: its part, its subject, and its files."""

    name: str  # with its part, if that of another part has the same
    part: str
    subject: str
    images: Mapping[str, Path]  # by modality; absent modalities have none, or one of zeros
    label: Path | None


class CaseSummary(NamedTuple):
    """Grid, intensities and volumes of a case."""

    case: RawCase
    grid: Grid  # of its scans
    ranges: dict[str, tuple[float, float]]  # 1st and 99th percentile of each present modality's values
    volumes: dict[str, float]  # ml of each class in the label; empty without a label

    def as_json(self) -> dict:
        """Return what there is to say, with paths as texts."""
        return {
            **self.case._asdict(),
            "images": {modality: str(self.case.images[modality]) for modality in self.ranges},
            "label": str(self.case.label) if self.case.label else None,
            "size": self.grid.size,
            "spacing_mm": self.grid.spacing,
            "percentiles_1_99": self.ranges,
            "volumes_ml": self.volumes,
        }

    @property
    def files(self) -> CaseFiles:
        """Files of the case, without the scans of zeros of absent modalities."""
        images = {modality: self.case.images[modality] for modality in self.ranges}
        return CaseFiles(self.case.name, images, self.case.label, {})


def find_cases(folder: Path, description: DatasetDescription) -> list[RawCase]:
    """Find all cases of a raw dataset, training first, then unlabelled, then test; ValueError if there is none."""
    cases = []
    for part, title in PARTS.items():
        for case, (files, label) in cases_of_part(folder, part, description).items():
            if images := by_modality(files, case, description):
                subject = description.subject_of(case)
                cases.append(RawCase(case, title, subject, images, label if label.exists() else None))
    if not cases:
        raise ValueError(f"{folder} has no case: convert the dataset again.")
    parts = Counter(case.name for case in cases)
    return [case._replace(name=f"{case.name}, {case.part}") if parts[case.name] > 1 else case for case in cases]


def summarize_case(case: RawCase, classes: Mapping[str, Label]) -> CaseSummary:
    """Read all files of a case. ValueError if one cannot be read, their grids differ, or all scans are zero."""
    require_one_grid(case.name, [*case.images.values(), *([case.label] if case.label else [])])
    grid = read_grid(next(iter(case.images.values())))

    def voxels_of(file: Path) -> np.ndarray:
        try:
            return read_voxels(file)
        except ValueError as error:
            raise ValueError(f"Case {case.name}: {file} {error}: convert the dataset again.") from error

    ranges = {}
    for modality, file in case.images.items():
        voxels = voxels_of(file)
        if voxels.any():
            low, high = percentiles(voxels, 1, 99)
            ranges[modality] = (low, high)
    if not ranges:
        raise empty_case(case.name, case.images.values())
    volumes = {}
    if case.label is not None:
        labels, millilitres = voxels_of(case.label), float(np.prod(grid.spacing)) / 1000
        volumes = {name: float(mask_of(labels, label).sum()) * millilitres for name, label in classes.items()}
    return CaseSummary(case, grid, ranges, volumes)


def overview(
    facts: Sequence[CaseSummary], modalities: Sequence[str], classes: Mapping[str, Label]
) -> list[list[list[str]]]:
    """Return tables of the parts, of the modalities and of the classes, each a list of rows, a header first."""
    parts = [["", "cases", "labelled", "subjects", *modalities]]
    for part in PARTS.values():
        own = [f for f in facts if f.case.part == part]
        counts = [sum(f.case.label is not None for f in own), len({f.case.subject for f in own})]
        parts.append([part, *map(str, [len(own), *counts, *(sum(m in f.ranges for f in own) for m in modalities)])])
    grids = [["", "size x, y, z", "spacing x, y, z [mm]", "values, 1 % to 99 %"]]
    for modality in modalities:
        own = [f for f in facts if modality in f.ranges]
        sizes, spacings = _along_axes(f.grid.size for f in own), _along_axes(f.grid.spacing for f in own)
        grids.append([modality, sizes, spacings, _along_axes((f.ranges[modality] for f in own), " to ")])
    volumes = [["", "labelled cases with it", "ml in those"]]
    labelled = [f for f in facts if f.case.label is not None]
    for name in classes:
        there = [[f.volumes[name]] for f in labelled if f.volumes[name]]
        volumes.append([name, f"{len(there)} of {len(labelled)}", _along_axes(there)])
    return [parts, grids, volumes]


def overview_text(tables: Sequence[Sequence[Sequence[str]]]) -> str:
    """Format the tables of :func:`overview`, and :data:`NOTE`."""
    return "\n\n".join([*map(_with_rule, tables), NOTE])


def case_entry(facts: CaseSummary, pictures: CasePictures, classes: Mapping[str, Label]) -> Entry:
    """Describe a case for the page: a row of slices for each of its modalities, with the label over them."""
    case, grid = facts.case, facts.grid
    notes = [
        *([f"of {case.subject}"] if case.subject != case.name else []),
        case.part if case.part == "unlabelled" else f"{case.part}, {'labelled' if case.label else 'not labelled'}",
        dimensions(grid.size),
        millimetres(grid.spacing),
    ]
    facets = {
        "part": case.part,
        "modalities": "+".join(facts.ranges),
        "label": "labelled" if case.label else "not labelled",
    }
    volumes = {f"ml of {name}": facts.volumes.get(name, math.nan) for name in classes}
    layers = [("label", pictures.reference)] if pictures.reference else []
    rows = [
        Row(modality, f"{low:.4g} to {high:.4g}", [modality], layers) for modality, (low, high) in facts.ranges.items()
    ]
    return Entry(case.name, notes, facets, volumes, pictures, rows)


def _along_axes(values: Iterable[Sequence[float]], separator: str = ", ") -> str:
    """Return median and range of each component, ``512 (320 .. 768), ...``, or the value that all have."""
    columns = list(zip(*values, strict=True))
    texts = [f"{np.median(c):.4g}" + (f" ({min(c):.4g} .. {max(c):.4g})" if min(c) < max(c) else "") for c in columns]
    return separator.join(texts) or "-"


def _with_rule(rows: Sequence[Sequence[str]]) -> str:
    header, *lines = text_table(rows).splitlines()
    return "\n".join([header, "-" * max(map(len, [header, *lines])), *lines])
