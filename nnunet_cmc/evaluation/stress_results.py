"""What a stress test found, as files: ``stress.csv`` and ``stress.json``."""

import csv
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from nnunet_cmc.data.files import atomic_write, read_json, write_json
from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.paired_statistics import COMPARED
from nnunet_cmc.evaluation.results import Evaluation
from nnunet_cmc.evaluation.stress_testing import Condition

REMEDY = "name the output folder of a finished nnunet_cmc stress"


def save_stress(
    evaluations: Mapping[Condition, Evaluation], names: Sequence[str], output: str | PathLike
) -> list[Path]:
    """Write ``stress.csv``, a row per condition, case and class, and ``stress.json``, means; returns both files.

    Args:
        names: of the modalities, by channel.
    """
    files = [Path(output, f"stress.{ending}") for ending in ("csv", "json")]
    with atomic_write(files[0]) as temporary, open(temporary, "w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(["condition", "given", "moved", "mm", "degrees", "case", "class", *METRICS])
        for condition, evaluation in evaluations.items():
            start = list(_describe(condition, names).values())
            for case in evaluation.cases:
                for name, metrics in case.metrics.items():
                    writer.writerow([*start, case.case, name, *(metrics[metric] for metric in METRICS)])
    write_json(files[1], {"conditions": summarize(evaluations, names)})
    return files


def summarize(evaluations: Mapping[Condition, Evaluation], names: Sequence[str]) -> list[dict]:
    """Return what ``stress.json`` holds of each condition: its description, number of cases, and means."""
    return [
        {
            **_describe(condition, names),
            "cases": len(evaluation.cases),
            "mean": {metric: evaluation.mean(metric).mean for metric in METRICS},
            "classes": {
                name: {
                    metric: vars(evaluation.statistic(name, metric)) | {"undefined": evaluation.undefined(name, metric)}
                    for metric in METRICS
                }
                for name in evaluation.classes
            },
        }
        for condition, evaluation in evaluations.items()
    ]


def _describe(condition: Condition, names: Sequence[str]) -> dict:
    return {
        "condition": condition.name,
        "given": "all" if condition.given is None else "+".join(names[c] for c in condition.given),
        "moved": "" if condition.moved is None else names[condition.moved],
        "mm": condition.millimetres,
        "degrees": condition.degrees,
    }


def read_conditions(file: Path) -> list[dict]:
    """Read the conditions of a ``stress.json``, with all that is drawn of them; NaN for an undefined mean.

    Raises:
        ValueError: it is missing or broken, or was not written by :func:`save_stress`.
    """
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
