"""Paired comparison of several predictions of the same cases: bootstrap intervals and Wilcoxon signed-rank tests."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product

import numpy as np
import pandas as pd
from scipy import stats
from tqdm import tqdm

from nnunet_cmc.evaluation.results import Evaluation, describe, name_of_mean, ordered

REPORTED_METRICS = ("Dice", "ASSD")  # in the tables, as in the paper
CONFIDENCE = 0.95
LACKING = 0.2  # share of the draws that may lack a class and be left out
_RESAMPLES = 2000
_CELL = ["subject", "class"]  # what a patient's cases are put together by


@dataclass(frozen=True)
class Cell:
    """One number of the paper's Table 1."""

    mean: float  # over cases; for the average over the classes' means
    std: float  # sample standard deviation over cases; for the average of the cases' own averages over classes
    n: int  # cases in which the metric is defined
    undefined: int  # cases that are not in the mean although one of reference and prediction has the class
    low: float  # bootstrap interval of the mean (percentiles, over subjects); NaN where too few have the class
    high: float


@dataclass(frozen=True)
class PairedTest:
    """Two-sided Wilcoxon signed-rank test of a prediction against the first one, not corrected for multiple tests."""

    difference: float  # mean over subjects of the prediction's value minus the first one's, where both are defined
    p: float  # NaN for no pair; 1 where no pair differs
    n: int  # subjects in which both are defined


class Comparison:
    """Evaluations of the same reference cases by the name of their prediction; all are tested against the first.

    ``cells`` and ``tests`` are by prediction, group of modalities, metric, and class or ``average``; ``table`` holds
    what they are computed from.

    Args:
        subjects: patient of each case, by default its own; cases of one patient are not independent, so bootstrap and
            test draw patients.
        seed: of the bootstrap.
        missing: name of each row without a result -> why, in a sentence.
        remarks: sentences below the tables.
        progress: show a progress bar.
    """

    def __init__(
        self,
        evaluations: Mapping[str, Evaluation],
        subjects: Mapping[str, str],
        seed: int = 0,
        missing: Mapping[str, str] | None = None,
        remarks: Sequence[str] = (),
        progress: bool = False,
    ):
        self.evaluations = dict(evaluations)
        self.names = list(self.evaluations)
        self.subjects = subjects
        self.seed = seed
        self.missing = dict(missing or {})
        self.remarks = list(remarks)
        first = next(iter(self.evaluations.values()))
        self.classes = list(first.classes)
        self.groups = first.groups
        self.average = name_of_mean(self.classes)
        self.columns = [*self.classes, self.average] if len(self.classes) > 1 else self.classes
        self.cells: dict[tuple[str, str, str, str], Cell] = {}
        self.tests: dict[tuple[str, str, str, str], PairedTest] = {}
        statistics = self._statistics()
        rows = list(product(self.names, self.groups, REPORTED_METRICS))
        for name, group, metric in tqdm(rows, "Computing intervals and tests", disable=not progress):
            columns = [*self.classes, self.average]
            tests = self._tests(name, group, metric)
            for column, low, high, test in zip(columns, *self._intervals(name, group, metric), tests, strict=True):
                key = (name, group, metric, column)
                cell = statistics.loc[key].to_dict()
                ends = np.minimum(low, cell["mean"]), np.maximum(high, cell["mean"])  # which is rounded in its own way
                self.cells[key] = Cell(**cell, low=float(ends[0]), high=float(ends[1]))
                if name != self.names[0]:
                    self.tests[key] = test

    @cached_property
    def table(self) -> pd.DataFrame:
        """The long table: columns ``prediction``, ``subject`` and those of :attr:`Evaluation.table`."""
        parts = {name: evaluation.table for name, evaluation in self.evaluations.items()}
        table = pd.concat(parts, names=["prediction"]).reset_index(level="prediction").reset_index(drop=True)
        table.insert(1, "subject", [self.subjects.get(case, case) for case in table["case"].astype(str)])
        cases = [case.case for case in self.evaluations[self.names[0]].cases]
        categories = {"prediction": self.names, "case": cases, "modalities": self.groups, "class": self.classes}
        return table.astype({column: ordered(values) for column, values in categories.items()})

    @property
    def has_several_rows(self) -> bool:
        """Whether the table has more than one row, with or without a result."""
        return len(self.names) + len(self.missing) > 1

    def as_json(self) -> dict:
        """Return every cell and test: ``[prediction][group][metric][class or average]``."""
        result: dict = {"first": self.names[0], "confidence": CONFIDENCE, "seed": self.seed, "predictions": {}}
        if self.missing:
            result["missing"] = self.missing
        for (name, group, metric, column), cell in self.cells.items():
            entry = vars(cell) | {}
            if test := self.tests.get((name, group, metric, column)):
                entry["against_first"] = vars(test)
            by_metric = result["predictions"].setdefault(name, {}).setdefault(group, {})
            by_metric.setdefault(metric, {})[column] = entry
        return result

    def _statistics(self) -> pd.DataFrame:
        """Return ``mean``, ``std``, ``n`` and ``undefined`` by prediction, modalities, metric, and class or average."""
        keys = ["prediction", "modalities", "metric"]
        table = self.table[self.table["metric"].isin(REPORTED_METRICS)]
        classes = describe(table, [*keys, "class"])
        cases = describe(table, [*keys, "case"]).reset_index().rename(columns={"mean": "value"})  # means over classes
        cases["undefined"] = cases["undefined"] > 0
        average = describe(cases, keys)
        average["mean"] = classes["mean"].groupby(keys, observed=True).mean()
        parts = [classes.reset_index().astype({"class": str}), average.reset_index().assign(**{"class": self.average})]
        return pd.concat(parts).set_index([*keys, "class"]).astype(object)  # so that a row keeps its integers

    def _values(self, name: str, group: str, metric: str) -> pd.Series:
        """Return the values of a prediction by subject, case and class."""
        table = self.table
        own = table[(table["prediction"] == name) & (table["modalities"] == group) & (table["metric"] == metric)]
        return own.set_index(["subject", "case", "class"])["value"]

    def _intervals(self, name: str, group: str, metric: str) -> np.ndarray:
        """Compute the ends of the interval for each class and, last, their mean, ``(2, classes + 1)``.

        Draws that lack a class are left out; NaN if more than :data:`LACKING` of them are expected to, whatever the
        seed. They are more where a single subject has the class, and fewer where two have it.
        """
        values = self._values(name, group, metric).groupby(_CELL, observed=False)
        sums, counts = (part.unstack("class").to_numpy() for part in (values.sum(), values.count()))
        subjects, classes = sums.shape
        ends = np.full((2, classes + 1), np.nan)
        known = counts.any(0)  # classes that some subject has
        if subjects < 2 or not known.any():
            return ends
        lacking = (counts == 0).mean(0) ** subjects
        patterns = np.unique(counts[:, known] == 0, axis=1)  # classes of the same subjects are lacking together
        usable = np.append(lacking, (patterns.mean(0) ** subjects).sum()) <= LACKING

        def means(drawn: np.ndarray, axis: int) -> np.ndarray:
            """Compute means ``(classes + 1, ...)`` of rows of subjects ``(..., subjects)``."""
            with np.errstate(invalid="ignore"):
                each = sums[drawn].sum(-2) / counts[drawn].sum(-2)
            average = each[..., known].mean(-1)  # NaN where a draw lacks one of these classes
            return np.moveaxis(np.concatenate([each, average[..., None]], -1), -1, 0)

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", stats.DegenerateDataWarning)  # draws that lack a class
            found = stats.bootstrap(
                (np.arange(subjects),),
                means,
                n_resamples=_RESAMPLES,
                batch=100,
                vectorized=True,
                axis=-1,
                method="percentile",
                random_state=np.random.default_rng(self.seed),
            ).bootstrap_distribution
        tail = (1 - CONFIDENCE) / 2
        ends[:, usable] = np.nanquantile(found[usable], (tail, 1 - tail), axis=-1)
        return ends

    def _tests(self, name: str, group: str, metric: str) -> list[PairedTest]:
        """Return the test of each class and, last, of their mean, from the cases that have a value in both."""
        differences = self._values(name, group, metric) - self._values(self.names[0], group, metric)
        of_subjects = differences.groupby(_CELL, observed=False).mean().unstack("class")
        averages = of_subjects.mean(axis="columns")  # over the classes that both have
        return [*map(_test, [*of_subjects.to_numpy().T, averages.to_numpy()])]


def _test(differences: np.ndarray) -> PairedTest:
    values = differences[~np.isnan(differences)]
    if not len(values):
        return PairedTest(float("nan"), float("nan"), 0)
    p = float(stats.wilcoxon(values).pvalue) if values.any() else 1.0
    return PairedTest(float(values.mean()), p, len(values))
