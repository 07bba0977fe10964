"""Several predictions of the same cases side by side: means with bootstrap intervals, and paired Wilcoxon tests."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nnunet_cmc.evaluation.results import Evaluation, Statistic, name_of_mean

COMPARED = ("Dice", "ASSD")
"""The metrics that the paper reports."""

CONFIDENCE = 0.95
_RESAMPLES = 2000


@dataclass(frozen=True)
class Cell:
    """One number of the paper's Table 1.

    Attributes:
        mean: over cases; for the average over the classes' means.
        std: sample standard deviation over cases; for the average of the cases' own averages over classes.
        n: cases in which the metric is defined.
        undefined: cases in which only one of reference and prediction has the class, so that a distance has no value
            and is not in the mean.
        low, high: bootstrap interval of the mean (percentiles, over subjects); NaN for fewer than two subjects.
    """

    mean: float
    std: float
    n: int
    undefined: int
    low: float
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two-sided Wilcoxon signed-rank test of a prediction against the first one, not corrected for multiple tests.

    Attributes:
        difference: mean over subjects of the prediction's value minus the first prediction's.
        p: NaN for no pair; 1 where no pair differs.
        n: subjects in which both are defined.
    """

    difference: float
    p: float
    n: int


class Comparison:
    """Evaluations of the same reference cases by the name of their prediction; all are tested against the first.

    ``cells`` and ``tests`` are by prediction, group of modalities, metric, and class or ``average``.

    Args:
        subjects: patient of each case; cases of one patient are not independent, so bootstrap and test draw patients.
        seed: of the bootstrap.
    """

    def __init__(self, evaluations: Mapping[str, Evaluation], subjects: Mapping[str, str], seed: int = 0):
        self.evaluations = dict(evaluations)
        self.subjects = subjects
        self.seed = seed
        first = next(iter(self.evaluations.values()))
        self.classes = list(first.classes)
        self.groups = first.groups
        self.average = name_of_mean(self.classes)
        self.columns = [*self.classes, self.average] if len(self.classes) > 1 else self.classes
        self.cells = {
            (name, group, metric, column): cell
            for name, evaluation in self.evaluations.items()
            for group in self.groups
            for metric in COMPARED
            for column, cell in self._cells(evaluation, group, metric).items()
        }
        self.tests = {
            (name, group, metric, column): test
            for name in self.names[1:]
            for group in self.groups
            for metric in COMPARED
            for column, test in self._tests(self.evaluations[name], first, group, metric).items()
        }

    @property
    def names(self) -> list[str]:
        """Of the predictions, the first first."""
        return list(self.evaluations)

    def as_json(self) -> dict:
        """Every cell and test: ``[prediction][group][metric][class or average]``."""
        result: dict = {"first": self.names[0], "confidence": CONFIDENCE, "seed": self.seed, "predictions": {}}
        for (name, group, metric, column), cell in self.cells.items():
            entry = vars(cell) | {}
            if test := self.tests.get((name, group, metric, column)):
                entry["against_first"] = vars(test)
            by_metric = result["predictions"].setdefault(name, {}).setdefault(group, {})
            by_metric.setdefault(metric, {})[column] = entry
        return result

    def _cells(self, evaluation: Evaluation, group: str, metric: str) -> dict[str, Cell]:
        cases = evaluation.of_group(group)
        statistics = {name: evaluation.statistic(name, metric, group) for name in self.classes}
        undefined = {name: evaluation.undefined(name, metric, group) for name in self.classes}
        own = Statistic.of(Statistic.of(case.metrics[name][metric] for name in self.classes).mean for case in cases)
        statistics[self.average] = Statistic(evaluation.mean(metric, group).mean, own.std, own.n)
        undefined[self.average] = sum(undefined.values())
        low, high = self._intervals(*self._sums(evaluation, group, metric))
        return {
            column: Cell(**vars(statistics[column]), undefined=undefined[column], low=float(start), high=float(end))
            for column, start, end in zip([*self.classes, self.average], low, high, strict=True)
        }

    def _sums(self, evaluation: Evaluation, group: str, metric: str) -> tuple[np.ndarray, np.ndarray]:
        """Sum and number of the defined values, ``(subjects, classes)``, subjects sorted."""
        cases = evaluation.of_group(group)
        subjects = sorted({self.subjects[case.case] for case in cases})
        sums = np.zeros((len(subjects), len(self.classes)))
        counts = np.zeros_like(sums)
        for case in cases:
            values = np.array([case.metrics[name][metric] for name in self.classes])
            row = subjects.index(self.subjects[case.case])
            sums[row] += np.nan_to_num(values)
            counts[row] += ~np.isnan(values)
        return sums, counts

    def _intervals(self, sums: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of the interval for each class and, last, their mean, ``(classes + 1,)``."""
        if len(sums) < 2:
            return (np.full(sums.shape[1] + 1, np.nan),) * 2

        def means(drawn: np.ndarray, axis: int) -> np.ndarray:
            """Rows of subjects ``(..., subjects)`` -> means ``(classes + 1, ...)``."""
            with np.errstate(invalid="ignore"):
                classes = sums[drawn].sum(-2) / counts[drawn].sum(-2)
            there = ~np.isnan(classes)
            average = np.nan_to_num(classes).sum(-1) / np.maximum(there.sum(-1), 1)
            average = np.where(there.any(-1), average, np.nan)
            return np.moveaxis(np.concatenate([classes, average[..., None]], -1), -1, 0)

        with warnings.catch_warnings():  # where some draws have no defined value, the interval is NaN
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)
            interval = stats.bootstrap(
                (np.arange(len(sums)),),
                means,
                n_resamples=_RESAMPLES,
                batch=100,
                vectorized=True,
                axis=-1,
                confidence_level=CONFIDENCE,
                method="percentile",
                random_state=np.random.default_rng(self.seed),
            ).confidence_interval
        return interval.low, interval.high

    def _tests(self, evaluation: Evaluation, first: Evaluation, group: str, metric: str) -> dict[str, PairedTest]:
        with np.errstate(invalid="ignore"):
            ours, theirs = (np.divide(*self._sums(one, group, metric)) for one in (evaluation, first))
        differences = ours - theirs  # NaN where either is undefined
        averages = [Statistic.of(row).mean for row in differences]  # over the classes that both have
        return dict(zip([*self.classes, self.average], map(_test, [*differences.T, np.array(averages)]), strict=True))


def _test(differences: np.ndarray) -> PairedTest:
    values = differences[~np.isnan(differences)]
    if not len(values):
        return PairedTest(float("nan"), float("nan"), 0)
    p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return PairedTest(float(values.mean()), p, len(values))
