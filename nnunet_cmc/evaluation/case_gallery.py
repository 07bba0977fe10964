"""A section of a page that shows cases: what its choices offer, and the script that opens a case in a viewer."""

from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.colors import to_hex

from nnunet_cmc.evaluation import open_case
from nnunet_cmc.evaluation.case_pictures import ERRORS, CaseFiles, CasePictures, window_table
from nnunet_cmc.evaluation.results import Label
from nnunet_cmc.evaluation.slices import CT_WINDOWS, colors_of
from nnunet_cmc.utils.files import write_json, write_text


class Row(NamedTuple):
    """Slices of one of the scans, with layers over it: each the kind, which the choices switch, and the file."""

    title: str
    note: str
    scans: Sequence[str]  # modalities, of which a choice shows one
    layers: Sequence[tuple[str, str]]


class Entry(NamedTuple):
    """A case of the page."""

    name: str
    notes: Sequence[str]
    facets: Mapping[str, str]  # what cases are filtered by
    numbers: Mapping[str, float]  # what they are sorted by; NaN: undefined
    pictures: CasePictures
    rows: Sequence[Row]


def gallery(entries: Sequence[Entry], classes: Mapping[str, Label]) -> dict[str, Any]:
    """Return what the template ``cases`` needs; all entries have the same facets and numbers."""
    facets = {name: sorted({entry.facets[name] for entry in entries}) for name in entries[0].facets}
    scans = dict.fromkeys(name for entry in entries for row in entry.rows if len(row.scans) > 1 for name in row.scans)
    has_ct = any(entry.pictures.ct for entry in entries)
    return {
        "entries": [
            (entry, {"facets": entry.facets, "numbers": [*map(_or_none, entry.numbers.values())]}) for entry in entries
        ],
        "facets": {name: values for name, values in facets.items() if len(values) > 1},
        "numbers": list(entries[0].numbers),
        "scans": list(scans),
        "windows": {
            name: " ".join(f"{value:.3g}" for value in window_table(*ends)) for name, ends in CT_WINDOWS.items()
        }
        if has_ct
        else {},
        "colors": {name: to_hex(color) for name, color in colors_of(classes).items()},
        "errors": ERRORS if any(entry.pictures.predictions for entry in entries) else {},
    }


def save_opener(page: Path, cases: Sequence[CaseFiles]) -> None:
    """Write ``open_case.py`` and its list of files beside a page."""
    source = Path(open_case.__file__)  # its mode is not copied: where a package is read-only, it could not be replaced
    write_text(page.with_name(source.name), source.read_text("utf-8"))
    listed = {
        case.case: {
            "scans": {name: str(Path(file).absolute()) for name, file in case.images.items()},
            "labels": {
                name: str(Path(file).absolute())
                for name, file in {"reference": case.reference, **case.predictions}.items()
                if file is not None
            },
        }
        for case in cases
    }
    write_json(page.with_name("open_case.json"), {"page": page.name, "cases": listed})


def files_of_page(page: Path) -> list[Path]:
    """List a page and what was written beside it."""
    beside = (page.with_name(name) for name in ("figures", "cases", "open_case.py", "open_case.json"))
    return [page, *(path for path in beside if path.exists())]


def _or_none(value: float) -> float | None:
    return None if isnan(value) else round(value, 4)
