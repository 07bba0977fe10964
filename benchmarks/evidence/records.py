"""``docs/results.json``: a record for each finished run and test input, of which all tables are made."""

import json
from pathlib import Path

from nnunet_cmc.utils.files import to_json, write_text

FILE = Path(__file__).resolve().parents[2] / "docs" / "results.json"
# what makes two records the same experiment, whose later run replaces the earlier
KEY = ("dataset", "arrangement", "shift_mm", "trainer", "recipe", "planner", "channels", "labels", "seed", "test_input",
       "profile")  # fmt: skip


def load(file: Path = FILE) -> list[dict]:
    """Return all records; none where there is no file."""
    return json.loads(file.read_text()) if file.is_file() else []


def save(new: list[dict], file: Path = FILE) -> None:
    """Add records, each in place of an earlier one of the same experiment."""
    records = {key(record): record for record in load(file)}
    records |= {key(record): record for record in new}
    lines = ",\n".join(to_json(records[k], sort_keys=True) for k in sorted(records, key=str))
    write_text(file, f"[\n{lines}\n]\n")


def key(record: dict) -> tuple:
    return tuple(record.get(name) for name in KEY)
