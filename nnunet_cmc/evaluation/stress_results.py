"""Results of a stress test: its long table, ``stress.csv`` and ``stress.json``."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

import pandas as pd

from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.paired_statistics import REPORTED_METRICS
from nnunet_cmc.evaluation.results import Evaluation, ordered, save_csv
from nnunet_cmc.evaluation.shown_channels import Condition
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
    """Return what ``stress.json`` holds of each condition: its description, number of cases, and means.

    Not every case has every modality. So the entry of missing modalities also has, of its own cases, the same numbers
    with all that they have (``complete``); that of a misalignment the same numbers as they are (``unmoved``) and with
    the moved modality left out (``without``).
    """
    present: dict[str, frozenset[int]] = defaultdict(frozenset)  # case -> its channels
    for condition, one in evaluations.items():
        if condition.moved is not None:
            for case in one.cases:
                present[case.case] |= {condition.moved}
    shown = {
        (case.case, present[case.case] if condition.given is None else frozenset(condition.given)): case
        for condition, one in evaluations.items()
        for case in one.cases
        if condition.moved is None
    }
    summaries = []
    for condition, one in evaluations.items():
        summary = {**_describe(condition, names), **_means(one)}
        own = [(case.case, present[case.case]) for case in one.cases]
        unchanged = [shown[case, channels] for case, channels in own]
        if condition.given is not None:
            summary["complete"] = _means(replace(one, cases=unchanged))
        if condition.moved is not None:
            summary["unmoved"] = _means(replace(one, cases=unchanged))
            rest = [shown[case, channels - {condition.moved}] for case, channels in own]
            summary["without"] = _means(replace(one, cases=rest))
        summaries.append(summary)
    return summaries


def leaves_out(entry: dict, metric: str, class_name: str | None = None) -> bool:
    """Return whether a mean of an entry leaves out cases, in which a class is only in reference or prediction."""
    return any(one[metric]["undefined"] for name, one in entry["classes"].items() if class_name in (None, name))


def _means(evaluation: Evaluation) -> dict:
    statistics = evaluation.statistics
    return {
        "cases": len(evaluation.cases),
        "mean": {metric: evaluation.mean(metric).mean for metric in METRICS},
        "classes": {name: statistics.loc[name].loc[list(METRICS)].to_dict("index") for name in evaluation.classes},
    }


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
    for entry in (one for condition in conditions for one in (condition, *_references(condition))):
        entry["mean"] |= {metric: float("nan") for metric in REPORTED_METRICS if entry["mean"][metric] is None}
    return conditions


def _is_condition(entry: Any) -> bool:
    try:
        names = all(isinstance(entry[key], str) for key in ("condition", "given", "moved"))
        numbers = all(type(entry[kind]) in (int, float) for kind in ("mm", "degrees"))
        return names and numbers and all(map(_has_means, (entry, *_references(entry))))
    except (AttributeError, KeyError, TypeError):
        return False


def _references(entry: dict) -> list[dict]:
    """Return what the entry of a changed condition is compared with."""
    if entry["moved"]:
        return [entry["unmoved"], entry["without"]]
    return [] if entry["given"] == "all" else [entry["complete"]]


def _has_means(entry: dict) -> bool:
    classes = entry["classes"].values()
    counts = [entry["cases"], *(one[metric]["undefined"] for one in classes for metric in REPORTED_METRICS)]
    means = [entry["mean"][metric] for metric in REPORTED_METRICS]
    return all(type(n) is int for n in counts) and all(type(mean) in (int, float, type(None)) for mean in means)
