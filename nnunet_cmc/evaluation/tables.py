"""Output of an evaluation: text for the screen, nnU-Net's ``summary.json`` and CSV."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import isnan
from os import PathLike

from nnunet_cmc.evaluation.metrics import COUNTS, METRICS
from nnunet_cmc.evaluation.results import Evaluation, name_of_mean, save_csv
from nnunet_cmc.utils.files import write_json
from nnunet_cmc.utils.formatting import counted

MARK = "†"  # of a mean that leaves out cases in which the metric is undefined
MARK_NOTE = (
    f"{MARK} undefined in cases where a class is only in the reference or only in the prediction: they are not in this "
    "mean, so it is too favourable."
)
_DECIMALS = {"Dice": 3, "IoU": 3, "ASSD": 2, "HD95": 2, "NSD": 3}


def format_table(evaluation: Evaluation) -> str:
    """Format a table per group of modalities, and over all cases if there are several, with remarks below."""
    groups: list[str | None] = [*evaluation.groups]
    tables = [_group_table(evaluation, group) for group in (groups if len(groups) == 1 else [*groups, None])]
    return "\n\n".join([*tables, "\n".join(one_sided_remarks(evaluation))]).rstrip()


def _group_table(evaluation: Evaluation, group: str | None) -> str:
    units = {"ASSD": "ASSD [mm]", "HD95": "HD95 [mm]", "NSD": f"NSD at {evaluation.tolerance:g} mm"}
    rows = [["class", *(units.get(metric, metric) for metric in METRICS)]]
    for name in evaluation.classes:
        row = [name]
        for metric in METRICS:
            found = evaluation.statistic(name, metric, group)
            spread = f" ± {_number(metric, found.std)}" if found.n > 1 else ""
            row.append(f"{_number(metric, found.mean)}{spread}{MARK * bool(found.undefined)} ({found.n})")
        rows.append(row)
    means = {metric: evaluation.mean(metric, group) for metric in METRICS}
    numbers = [_number(metric, found.mean) + MARK * bool(found.undefined) for metric, found in means.items()]
    rows.append([name_of_mean(evaluation.classes, "mean of classes"), *numbers])
    lines = text_table(rows).splitlines()
    rule = "-" * max(map(len, lines))
    title = f"{group or 'all cases'}: {_cases(len(evaluation.of_group(group)))}, mean ± standard deviation (n)"
    return "\n".join([title, rule, lines[0], rule, *lines[1:-1], rule, lines[-1]])


def aligned(rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> list[list[str]]:
    """Pad the cells of each column of a text table to one width; from column ``numbers_from`` on, on the left."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    pads = [str.ljust if numbers_from is None or i < numbers_from else str.rjust for i in range(len(widths))]
    return [[pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)] for row in rows]


def text_table(rows: Sequence[Sequence[str]], numbers_from: int | None = None) -> str:
    """Format a text table, see :func:`aligned`."""
    return "\n".join("  ".join(row).rstrip() for row in aligned(rows, numbers_from))


def _cases(n: int) -> str:
    return counted(n, "case")


def _number(metric: str, value: float) -> str:
    return "-" if isnan(value) else f"{value:.{_DECIMALS[metric]}f}"


def one_sided_remarks(evaluation: Evaluation) -> list[str]:
    """Return remarks on classes that are only in the reference or only in the prediction of a case."""
    kinds = ("In the reference but not predicted", "Predicted but not in the reference")
    remarks = [
        f"{kind}: {', '.join(f'{name} in {_cases(n)}' for name, n in counts.items())}."
        for kind, counts in zip(kinds, one_sided(evaluation), strict=True)
        if counts
    ]
    if remarks:
        remarks.append(f"Dice, IoU and NSD are 0 there; ASSD and HD95 are undefined and not in the mean ({MARK}).")
    return remarks


def named_remarks(evaluations: Mapping[str, Evaluation]) -> list[str]:
    """Return :func:`one_sided_remarks` of several predictions, each with its name."""
    return [f"{name}: {line}" for name, evaluation in evaluations.items() for line in one_sided_remarks(evaluation)]


def one_sided(evaluation: Evaluation) -> tuple[Counter, Counter]:
    """Count the cases per class that are only in the reference (missed), and only in the prediction (spurious)."""
    found = [one for case in evaluation.cases for one in case.metrics.items()]
    missed = Counter(name for name, metrics in found if metrics["n_pred"] == 0 < metrics["n_ref"])
    return missed, Counter(name for name, metrics in found if metrics["n_ref"] == 0 < metrics["n_pred"])


def save_summary(evaluation: Evaluation, file: str | PathLike) -> None:
    """Write ``summary.json``: nnU-Net's keys, the surface metrics beside its own, and our key ``cmc``.

    ``mean[class]`` is over the cases where the metric is defined, ``foreground_mean`` over the classes that have a
    mean; ``cmc`` holds mean, std and n per group of modalities, class (by name) and metric.
    """
    keys = {name: str(label) for name, label in evaluation.classes.items()}
    metrics, measured = list(METRICS), [*METRICS, *COUNTS]
    means, groups = evaluation.statistics["mean"], evaluation.statistics_of_groups[["mean", "std", "n"]]
    summary = {
        "metric_per_case": [
            {
                "case": case.case,
                "modalities": case.modalities,
                "reference_file": case.reference_file,
                "prediction_file": case.prediction_file,
                "metrics": {keys[name]: metrics for name, metrics in case.metrics.items()},
            }
            for case in evaluation.cases
        ],
        "mean": {key: means.loc[name].loc[measured].to_dict() for name, key in keys.items()},
        "foreground_mean": {metric: evaluation.mean(metric).mean for metric in measured},
        "cmc": {
            "nsd_tolerance_mm": evaluation.tolerance,
            "labels": keys,
            "groups": {
                group: {name: groups.loc[(group, name)].loc[metrics].to_dict("index") for name in keys}
                for group in evaluation.groups
            },
        },
    }
    write_json(file, summary, sort_keys=True)


def save_summary_csv(evaluation: Evaluation, file: str | PathLike) -> None:
    """Write a row per case and class; an undefined metric is ``nan``."""
    table = evaluation.table.assign(label=[str(evaluation.classes[name]) for name in evaluation.table["class"]])
    save_csv(table, ["case", "modalities", "class", "label"], [*METRICS, *COUNTS], file)
