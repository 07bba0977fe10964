"""Results of a stress test: its long table, ``stress.csv`` and ``stress.json``."""

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.paired_statistics import COMPARED
from nnunet_cmc.evaluation.results import Evaluation, ordered, save_csv
from nnunet_cmc.evaluation.stress_testing import Condition
from nnunet_cmc.utils.files import read_json, write_json

DESCRIBED = ["condition", "given", "moved", "mm", "degrees"]
REMEDY = "name the output folder of a finished nnunet_cmc stress"


def stress_table(evaluations: Mapping[Condition, Evaluation], names: Sequence[str]) -> pd.DataFrame:
    """Return :attr:`Evaluation.table` for all conditions, after ``condition, given, moved, mm, degrees``.

    Args:
        names: of the modalities, by channel.
    """
    parts = [one.table.assign(**_describe(condition, names)) for condition, one in evaluations.items()]
    table = pd.concat(parts, ignore_index=True)
    table = table.astype({column: ordered(table[column].unique()) for column in ("condition", "case", "class")})
    return table[DESCRIBED + [column for column in table if column not in DESCRIBED]]


def save_stress(
    evaluations: Mapping[Condition, Evaluation], names: Sequence[str], output: str | PathLike
) -> list[Path]:
    """Write ``stress.csv``, a row per condition, case and class, and ``stress.json``, means; returns both files."""
    files = [Path(output, f"stress.{ending}") for ending in ("csv", "json")]
    save_csv(stress_table(evaluations, names), [*DESCRIBED, "case", "class"], METRICS, files[0])
    write_json(files[1], {"conditions": summarize(evaluations, names)})
    return files


def summarize(evaluations: Mapping[Condition, Evaluation], names: Sequence[str]) -> list[dict]:
    """Return what ``stress.json`` holds of each condition: its description, number of cases, and means."""
    return [
        {
            **_describe(condition, names),
            "cases": len(one.cases),
            "mean": {metric: one.mean(metric).mean for metric in METRICS},
            "classes": {name: one.statistics.loc[name].loc[list(METRICS)].to_dict("index") for name in one.classes},
        }
        for condition, one in evaluations.items()
    ]


def _describe(condition: Condition, names: Sequence[str]) -> dict:
    given = "all" if condition.given is None else "+".join(names[c] for c in condition.given)
    moved = "" if condition.moved is None else names[condition.moved]
    values = (condition.name, given, moved, condition.millimetres, condition.degrees)
    return dict(zip(DESCRIBED, values, strict=True))


def read_conditions(file: Path) -> list[dict]:
    """Read the conditions of a ``stress.json``; NaN for an undefined mean. ValueError if stress did not write it."""
    content = read_json(file, REMEDY)
    conditions = content.get("conditions") if isinstance(content, dict) else None
    if not (isinstance(conditions, list) and conditions and all(map(_is_condition, conditions))):
        raise ValueError(f"{file} has no conditions as nnunet_cmc stress writes them: {REMEDY}.")
    for entry in conditions:
        entry["mean"] |= {metric: float("nan") for metric in COMPARED if entry["mean"][metric] is None}
    return conditions


def _is_condition(entry: Any) -> bool:
    try:
        names = isinstance(entry["condition"], str) and isinstance(entry["moved"], str)
        counts = [entry["cases"], *(c[metric]["undefined"] for c in entry["classes"].values() for metric in COMPARED)]
        numbers = [entry["mm"], entry["degrees"]]
        means = [entry["mean"][metric] for metric in COMPARED]
    except (AttributeError, KeyError, TypeError):
        return False
    numeric = all(type(n) in (int, float) for n in [*numbers, *(mean for mean in means if mean is not None)])
    return names and numeric and all(type(n) is int for n in counts)
