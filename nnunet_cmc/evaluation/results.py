"""What an evaluation found: metrics per case and class, and their statistics per group of modalities."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

import numpy as np

Label = int | tuple[int, ...]
"""The value of a class in a label map, or the values that make up a region."""


def name_of_mean(classes: Collection[str], usual: str = "average") -> str:
    """What stands for the mean over the classes where a class could be named: the usual, or else what none is named."""
    return name_of_mean(classes, f"{usual} of all") if usual in classes else usual


@dataclass(frozen=True)
class Statistic:
    """Mean and sample standard deviation (NaN below two values) over the ``n`` cases where a metric is defined."""

    mean: float
    std: float
    n: int

    @classmethod
    def of(cls, values: Iterable[float]) -> "Statistic":
        """Statistic of the ``values`` that are not NaN."""
        defined = [value for value in values if not np.isnan(value)]
        mean = float(np.mean(defined)) if defined else float("nan")
        std = float(np.std(defined, ddof=1)) if len(defined) > 1 else float("nan")
        return cls(mean, std, len(defined))


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
        without_reference: predicted cases that have no reference and were not judged.
    """

    classes: dict[str, Label]
    tolerance: float
    cases: list[CaseResult]
    without_reference: list[str]

    @property
    def groups(self) -> list[str]:
        """The combinations of modalities that occur, single ones first."""
        return sorted({case.modalities for case in self.cases}, key=lambda group: (group.count("+"), group))

    def of_group(self, modalities: str | None = None) -> list[CaseResult]:
        """Cases scanned in exactly these modalities; all cases for None."""
        return [case for case in self.cases if modalities in (None, case.modalities)]

    def statistic(self, class_name: str, metric: str, modalities: str | None = None) -> Statistic:
        """Statistic of one metric of one class over a group of cases, or over all."""
        return Statistic.of(case.metrics[class_name][metric] for case in self.of_group(modalities))

    def undefined(self, class_name: str, metric: str, modalities: str | None = None) -> int:
        """Cases that :meth:`statistic` leaves out although one of reference and prediction has the class."""
        metrics = [case.metrics[class_name] for case in self.of_group(modalities)]
        return sum(bool(np.isnan(one[metric])) and one["n_ref"] + one["n_pred"] > 0 for one in metrics)

    def mean(self, metric: str, modalities: str | None = None) -> Statistic:
        """Statistic over the classes' means (nnU-Net's foreground mean); ``n`` counts the classes that have one."""
        return Statistic.of(self.statistic(name, metric, modalities).mean for name in self.classes)
