"""Results of an evaluation: metrics per case and class, and their statistics per group of modalities."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from os import PathLike

import numpy as np
import pandas as pd

from nnunet_cmc.evaluation.metrics import COUNTS
from nnunet_cmc.utils.files import atomic_write

Label = int | tuple[int, ...]  # the value of a class in a label map, or the values that make up a region


def name_of_mean(classes: Collection[str], usual: str = "average") -> str:
    """Return the name of the mean over the classes: the usual one, or a longer one if a class has that name."""
    return name_of_mean(classes, f"{usual} of all") if usual in classes else usual


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (NaN below two values) of the ``n`` values where a metric is defined.

    They are of cases, or, in ``Evaluation.mean``, of classes.
    """

    mean: float
    std: float
    n: int
    undefined: int = 0  # cases that are left out although one of reference and prediction has the class

    @classmethod
    def of(cls, values: Iterable[float]) -> "Statistic":
        """Compute the statistic of the ``values`` that are not NaN."""
        series = pd.Series(list(values), dtype=float)
        return cls(float(series.mean()), float(series.std()), int(series.count()))


@dataclass(frozen=True)
class CaseResult:
    """One case: ``modalities`` it was scanned in, such as "CT+MR", and ``metrics[class name][metric]``."""

    case: str
    modalities: str
    reference_file: str
    prediction_file: str
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Evaluation:
    """All cases of one folder of predictions.

    Attributes:
        classes: name and label of each foreground class, in the order of ``dataset.json``.
        tolerance: of NSD, in mm.
        cases: sorted by name.
        without_reference: predicted cases that have no reference and were not evaluated.
    """

    classes: dict[str, Label]
    tolerance: float
    cases: list[CaseResult]
    without_reference: list[str]

    @cached_property
    def table(self) -> pd.DataFrame:
        """List a row per case, class and metric; ``undefined`` is a NaN where one of the two has the class."""
        rows = [
            (case.case, case.modalities, name, metric, value, np.isnan(value) and one["n_ref"] + one["n_pred"] > 0)
            for case in self.cases
            for name, one in case.metrics.items()
            for metric, value in one.items()
        ]
        table = pd.DataFrame(rows, columns=["case", "modalities", "class", "metric", "value", "undefined"])
        names = {"case": [case.case for case in self.cases], "modalities": self.groups, "class": self.classes}
        types = {column: ordered(values) for column, values in names.items()}
        return table.astype({**types, "value": float, "undefined": bool})

    @cached_property
    def statistics(self) -> pd.DataFrame:
        """Compute ``mean``, ``std``, ``n`` and ``undefined`` of all cases by ``class`` and ``metric``."""
        return describe(self.table, ["class", "metric"])

    @cached_property
    def statistics_of_groups(self) -> pd.DataFrame:
        """Compute ``mean``, ``std``, ``n`` and ``undefined`` by ``modalities``, ``class`` and ``metric``."""
        return describe(self.table, ["modalities", "class", "metric"])

    @property
    def groups(self) -> list[str]:
        """The combinations of modalities that occur, single ones first."""
        return sorted({case.modalities for case in self.cases}, key=lambda group: (group.count("+"), group))

    def of_group(self, modalities: str | None = None) -> list[CaseResult]:
        """Return the cases scanned in exactly these modalities; all cases for None."""
        return [case for case in self.cases if modalities in (None, case.modalities)]

    def statistic(self, class_name: str, metric: str, modalities: str | None = None) -> Statistic:
        """Return the statistic of one metric of one class over a group of cases, or over all."""
        row = self._statistics(modalities).loc[(class_name, metric)]
        return Statistic(float(row["mean"]), float(row["std"]), int(row["n"]), int(row["undefined"]))

    def mean(self, metric: str, modalities: str | None = None) -> Statistic:
        """Return the statistic over the classes' means (nnU-Net's foreground mean); ``n`` counts the classes in it."""
        of_classes = self._statistics(modalities).xs(metric, level="metric")
        return replace(Statistic.of(of_classes["mean"]), undefined=int(of_classes["undefined"].sum()))

    def _statistics(self, modalities: str | None) -> pd.DataFrame:
        return self.statistics if modalities is None else self.statistics_of_groups.loc[modalities]


def ordered(values: Iterable[str]) -> pd.CategoricalDtype:
    """Return the type of a column of categories that sorts as ``values`` do."""
    return pd.CategoricalDtype(list(values), ordered=True)


def describe(table: pd.DataFrame, by: list[str]) -> pd.DataFrame:
    """Return ``mean``, ``std``, ``n`` (of defined values) and ``undefined`` of a long table by the columns ``by``."""
    parts = {"mean": ("value", "mean"), "std": ("value", "std"), "n": ("value", "count")}
    return table.groupby(by, observed=True).agg(**parts, undefined=("undefined", "sum"))


def save_csv(table: pd.DataFrame, index: list[str], metrics: Iterable[str], file: str | PathLike) -> None:
    """Write a long table as CSV: a row per case and class, the columns ``index`` and ``metrics``; NaN is ``nan``."""
    wide = table.pivot(index=index, columns="metric", values="value")[list(metrics)]
    wide = wide.astype({metric: int for metric in metrics if metric in COUNTS})
    with atomic_write(file) as temporary:
        wide.to_csv(temporary, na_rep="nan", lineterminator="\r\n")
