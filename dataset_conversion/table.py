"""Conversion of any dataset, given as a table: a CSV file with a row for each scan."""

import csv
import io
import re
from collections.abc import Sequence
from itertools import chain, count, zip_longest
from pathlib import Path
from typing import Any, NamedTuple
from unicodedata import normalize

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.dataset_conversion.label_names import Classes, number_classes
from nnunet_cmc.dataset_conversion.modalities import require_usable
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles, files_of_two_uses

REQUIRED = ("subject", "modality", "image")
OPTIONAL = ("label", "part", "case")
DELIMITERS = ",;\t"


class Row(NamedTuple):
    line: int
    subject: str
    modality: str
    image: Path
    label: Path | None
    test: bool
    case: str  # "" without the column


def convert_table(dataset_id: int, name: str, table: str | Path, classes: Classes, **options: Any) -> Path:
    """Write the raw dataset ``Dataset{ID:03d}_{name}`` from the scans of a CSV file, and return its folder.

    Cells are separated by commas, semicolons or tabs. Columns are ``subject``, ``modality``, ``image`` and, if wanted,
    ``label``, ``part`` (``train``, which an empty cell means too, or ``test``) and ``case``; paths are relative to the
    table's folder. Modalities become channels in the order in which they appear. Rows with the same ``case`` are one,
    on one grid. Without that column, where any label belongs to scans of several modalities, scans are registered, and
    all rows of a subject are one case; otherwise each row is a case ``SUBJECT_MODALITY`` on a grid of its own.
    ``options`` are those of :func:`write_raw_dataset`.

    Raises:
        ValueError: the table is inconsistent, or files are bad (all of them are listed).
    """
    rows = _read(Path(table))
    _require_own_files(rows, table)
    channels = list(dict.fromkeys(row.modality for row in rows))
    require_usable(channels)
    labels, values = number_classes(classes, channels)
    users = {(row.label, row.modality) for row in rows if row.label}
    registered = len({label for label, _ in users}) < len(users)
    if registered and any(own != values[0] for own in values):
        raise ValueError("There are classes for each modality, but modalities share labels: give classes once.")
    groups: dict[str, list[Row]] = {}
    for row in rows:
        name_of_scan = f"{row.subject}_{row.modality}"
        numbered = chain([name_of_scan], (f"{name_of_scan}_{number}" for number in count(2)))
        own = row.subject if registered else next(each for each in numbered if each not in groups)
        groups.setdefault(row.case or own, []).append(row)
    cases = [_case(case, scans, channels, values) for case, scans in groups.items()]
    labelled = {channel for case in cases if case.label and not case.test for channel in case.images}
    if missing := [modality for channel, modality in enumerate(channels) if channel not in labelled]:
        raise ValueError(
            f"{table} has no label for {missing[0]} in the training part: if the scans of a subject lie on one grid, "
            "write its label into the rows of all its modalities; otherwise label a scan of it, or leave its rows out."
        )
    unused = UnusedFiles(errors=files_of_two_uses(cases, channels))
    return write_raw_dataset(dataset_id, name, channels, labels, cases, unused=unused, **options)


def _require_own_files(rows: Sequence[Row], table: str | Path) -> None:
    """Raise a ValueError if two rows have one image, or two subjects one label."""
    images: dict[Path, Row] = {}
    labels: dict[Path, Row] = {}
    for row in rows:
        if (first := images.setdefault(row.image.resolve(), row)) is not row:
            raise ValueError(
                f"Lines {first.line} and {row.line} of {table} have the same image {row.image}: give every scan one "
                "row."
            )
        if row.label and (first := labels.setdefault(row.label.resolve(), row)).subject != row.subject:
            raise ValueError(
                f"Lines {first.line} and {row.line} of {table} have the same label {row.label}, but the subjects "
                f"{first.subject} and {row.subject}: give every subject labels of its own."
            )


def _case(name: str, rows: list[Row], channels: list[str], values: Sequence[dict[int, int] | None]) -> Case:
    subject, test = rows[0].subject, rows[0].test
    images = {channels.index(row.modality): row.image for row in rows}
    labels = {row.label: values[channels.index(row.modality)] for row in rows if row.label}
    if len(images) < len(rows) or len(labels) > 1 or len({(row.subject, row.test) for row in rows}) > 1:
        raise ValueError(
            f"Case {name} has a modality twice, several labels, parts or subjects, but is one grid of one subject (all "
            "scans of a subject, where modalities share labels and there is no column case): give each grid a name "
            "in the column case."
        )
    label, label_values = next(iter(labels.items()), (None, None))
    return Case(name, subject, images, label, test, label_values)


def _read(table: Path) -> list[Row]:
    """Read a table as spreadsheets write it: the head in any case of letters, rows and last columns perhaps empty."""
    try:
        text = table.read_text(encoding="utf-8-sig")
        text = re.sub(r"\A\s*sep=.\r?\n?", "\n", text)  # by which Excel is told of the delimiter; one line as before
        delimiter = max(DELIMITERS, key=text.strip().partition("\n")[0].count)
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        lines = [(reader.line_num, [cell.strip() for cell in cells]) for cells in reader if "".join(cells).strip()]
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{table} cannot be read as CSV in UTF-8 ({error}): save it so, which spreadsheets call CSV UTF-8."
        ) from error
    columns = [cell.casefold() for cell in lines[0][1]] if lines else []
    while columns and not columns[-1]:
        columns.pop()
    if not {*REQUIRED} <= {*columns} <= {*REQUIRED, *OPTIONAL} or len(set(columns)) < len(columns):
        raise ValueError(f"{table} must have the columns {', '.join(REQUIRED + OPTIONAL)}, but has {columns}.")
    rows = []
    for line, values in lines[1:]:
        cells = dict(zip_longest(columns, values[: len(columns)], fillvalue=""))
        part = cells.get("part", "").casefold()
        filled = [cells[column] for column in (*REQUIRED, "case") if column in columns]
        complete = all(filled) and not any(values[len(columns) :])
        if not complete or part not in ("", "train", "test"):
            raise ValueError(
                f"Line {line} of {table} needs a subject, a modality, an image, a case if that is a column, and the "
                f"part train or test, but is {delimiter.join(values)}."
            )
        label = table.parent / cells["label"] if cells.get("label") else None
        image = table.parent / cells["image"]
        subject, modality, case = (
            normalize("NFC", cells.get(column, "")) for column in ("subject", "modality", "case")
        )
        rows.append(Row(line, subject, modality, image, label, part == "test", case))
    if not rows:
        raise ValueError(f"{table} has no row below its header: add one for each scan.")
    return rows
