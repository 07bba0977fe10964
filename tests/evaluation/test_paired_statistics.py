"""Means, bootstrap intervals and paired tests against numbers computed in another way."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import rankdata

from nnunet_cmc.evaluation.paired_statistics import Comparison, PairedTest
from nnunet_cmc.evaluation.results import CaseResult, Evaluation

CLASSES = {"liver": 1, "spleen": 2}


def evaluation(values, modalities="CT"):
    """``values``: a row (liver, spleen) per case, NaN for a metric that is undefined because one mask is empty."""
    cases = []
    for number, row in enumerate(values):
        metrics = {
            name: {"Dice": np.nan_to_num(value), "ASSD": value, "n_ref": 5, "n_pred": 0 if np.isnan(value) else 4}
            for name, value in zip(CLASSES, row, strict=True)
        }
        cases.append(CaseResult(f"case{number}", modalities, "", "", metrics))
    return Evaluation(CLASSES, 2.0, cases, [])


def compare(*tables, subjects=None, **options):
    names = "abc"[: len(tables)]
    own = {f"case{i}": f"case{i}" for i in range(len(tables[0]))}
    return Comparison(dict(zip(names, map(evaluation, tables), strict=True)), subjects or own, **options)


def two_sided_p(differences):
    """Wilcoxon's p: over all signs that the ranks could have had, the share as extreme as what was found."""
    ranks = rankdata(np.abs(differences))
    found = abs(ranks @ np.sign(differences))
    signs = itertools.product((-1, 1), repeat=len(ranks))
    return np.mean([abs(ranks @ np.array(sign)) >= found - 1e-9 for sign in signs])


def test_means_and_deviations():
    table = np.array([[0.9, 0.5], [0.8, 0.7], [0.4, 0.6]])
    cells = compare(table).cells
    liver, average = cells["a", "CT", "ASSD", "liver"], cells["a", "CT", "ASSD", "average"]
    assert (liver.mean, liver.std) == pytest.approx((0.7, np.std([0.9, 0.8, 0.4], ddof=1)))
    assert (liver.n, liver.undefined) == (3, 0)
    assert (average.mean, average.std) == pytest.approx((0.65, np.std([0.7, 0.75, 0.5], ddof=1)))


def test_undefined_values_are_left_out_and_counted():
    comparison = compare([[1.0, np.nan], [2.0, 4.0], [3.0, np.nan]], [[1.5, 3.0], [2.5, 5.0], [3.5, 3.0]])
    spleen, average = (comparison.cells["a", "CT", "ASSD", column] for column in ("spleen", "average"))
    assert (spleen.mean, spleen.n, spleen.undefined) == (4.0, 1, 2)
    assert np.isnan(spleen.std)
    assert (average.mean, average.undefined) == (3.0, 2)
    assert comparison.cells["a", "CT", "Dice", "spleen"].undefined == 0
    spleen, average = (comparison.tests["b", "CT", "ASSD", column] for column in ("spleen", "average"))
    assert (spleen.difference, spleen.n) == (1.0, 1)
    assert (average.difference, average.n) == (pytest.approx((0.5 + 0.75 + 0.5) / 3), 3)  # over the classes both have


@pytest.mark.parametrize("seed", range(3))
def test_p_is_that_of_all_possible_signs(seed):
    rng = np.random.default_rng(seed)
    first, other = rng.normal(3, 1, (2, 9, 2))
    tests = compare(first, other).tests
    for column, values in {"liver": (other - first)[:, 0], "average": (other - first).mean(1)}.items():
        test = tests["b", "CT", "ASSD", column]
        assert (test.p, test.difference, test.n) == pytest.approx((two_sided_p(values), values.mean(), 9))


def test_a_patients_cases_are_paired_too():
    """A class that is missed in the hard visit of each patient is no difference in the visits that both have."""
    first = np.array([[1.0 + 0.01 * patient, 9.0 + 0.01 * patient] for patient in range(8)])
    missed = first.copy()
    missed[:, 1] = np.nan
    tables = [np.column_stack([values.ravel()] * 2) for values in (first, missed)]
    tests = compare(*tables, subjects={f"case{i}": f"patient{i // 2}" for i in range(16)}).tests
    for column in (*CLASSES, "average"):
        assert tests["b", "CT", "ASSD", column] == PairedTest(difference=0, p=1, n=8)
    assert tests["b", "CT", "Dice", "liver"].difference == pytest.approx(-first[:, 1].mean() / 2)


def test_a_case_without_a_stated_subject_is_a_subject_of_its_own():
    subjects = {"case0": "patient", "case1": "patient"}
    table = compare([[1.0, 2.0]] * 4, [[1.5, 2.0]] * 4, subjects=subjects)
    assert table.tests["b", "CT", "ASSD", "liver"].n == 3
    assert set(table.table["subject"]) == {"patient", "case2", "case3"}


def test_equal_predictions_do_not_differ():
    table = [[1.0, 2.0], [3.0, 4.0]]
    test = compare(table, table).tests["b", "CT", "ASSD", "liver"]
    assert (test.difference, test.p, test.n) == (0, 1, 2)


def test_nothing_in_common_has_no_p():
    test = compare([[np.nan, 1.0]], [[1.0, 1.0]]).tests["b", "CT", "ASSD", "liver"]
    assert np.isnan(test.p)
    assert test.n == 0


def drawn_interval(table, subjects, draws=20000):
    """The middle 95 % of the mean over all cases of subjects that are drawn with replacement, by a plain loop."""
    rng = np.random.default_rng(123)
    by_subject = [table[np.array(subjects) == subject] for subject in dict.fromkeys(subjects)]
    means = [
        np.concatenate([by_subject[i] for i in rng.integers(len(by_subject), size=len(by_subject))]).mean()
        for _ in range(draws)
    ]
    return np.percentile(means, (2.5, 97.5))


@pytest.mark.parametrize("subjects", [list("abcdefghijkl"), list("aaaabbbbccde")])
def test_the_interval_is_that_of_drawn_subjects(subjects):
    table = np.random.default_rng(0).exponential(2, (12, 2))
    comparison = compare(table, subjects={f"case{i}": subject for i, subject in enumerate(subjects)})
    cell = comparison.cells["a", "CT", "ASSD", "liver"]
    low, high = drawn_interval(table[:, 0], subjects)
    assert (cell.low, cell.high) == pytest.approx((low, high), abs=0.05 * (high - low))
    average = comparison.cells["a", "CT", "ASSD", "average"]
    low, high = drawn_interval(table.mean(1), subjects)
    assert (average.low, average.high) == pytest.approx((low, high), abs=0.05 * (high - low))


def test_the_interval_is_reproducible():
    table = np.random.default_rng(0).random((5, 2))
    assert compare(table).cells == compare(table).cells


@pytest.mark.parametrize("value", [0.1, 0.7, 4 / 7])
def test_an_interval_holds_its_mean_where_all_subjects_have_one_value(value):
    """Means over subjects and over draws of them are rounded in their own ways."""
    for n in range(2, 13):
        for cell in compare([[value, value]] * n).cells.values():
            assert cell.low <= cell.mean <= cell.high
            assert (cell.low, cell.high) == pytest.approx((value, value))


@pytest.mark.filterwarnings("error")
def test_one_subject_has_no_interval():
    assert all(np.isnan(cell.low) for cell in compare([[1.0, 2.0]]).cells.values())


def intervals(table, columns=("liver", "spleen", "average")):
    """The intervals of some seeds, ``(seeds, columns, 2)``, of ASSD."""
    found = [compare(table, seed=seed).cells for seed in range(10)]
    cells = [[one["a", "CT", "ASSD", column] for column in columns] for one in found]
    return np.array([[(cell.low, cell.high) for cell in row] for row in cells])


def conditional_interval(table, draws=20000):
    """The middle 95 % of the average over the classes, of those draws of cases in which both occur, by a plain loop."""
    rng, means = np.random.default_rng(123), []
    for _ in range(draws):
        drawn = table[rng.integers(len(table), size=len(table))]
        if not np.isnan(drawn).all(0).any():
            means.append(np.nanmean(drawn, 0).mean())
    return np.percentile(means, (2.5, 97.5))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [3, 8, 40])
def test_a_class_that_two_subjects_have_has_an_interval_whatever_the_seed(n):
    """In up to an eighth of the draws it does not occur: those are left out."""
    table = np.column_stack([np.arange(1.0, n + 1), np.full(n, np.nan)])
    table[:2, 1] = 3.0, 5.0
    found = intervals(table)
    assert np.ptp(found[:, 1], axis=0) == pytest.approx([0, 0])
    assert found[0, 1] == pytest.approx([3, 5])
    width = np.ptp(conditional_interval(table))
    assert np.abs(found[:, 2] - conditional_interval(table)).max() < 0.1 * width


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("n", [2, 3, 8, 40])
def test_a_class_that_one_subject_has_leaves_no_interval_whatever_the_seed(n):
    """Nobody knows how it differs between subjects; nor does anybody of the average that it is part of."""
    table = np.column_stack([np.arange(1.0, n + 1), np.full(n, np.nan)])
    table[0, 1] = 3.0
    found = intervals(table)
    assert not np.isnan(found[:, 0]).any()
    assert np.isnan(found[:, 1:]).all()


@pytest.mark.filterwarnings("error")
def test_a_class_that_no_subject_has_is_in_no_average():
    table = [[1.0, np.nan], [2.0, np.nan], [3.0, np.nan]]
    cells = compare(table).cells
    assert np.isnan(cells["a", "CT", "ASSD", "spleen"].low)
    liver, average = (cells["a", "CT", "ASSD", column] for column in ("liver", "average"))
    assert (average.low, average.high) == (liver.low, liver.high)
    assert average.high > 1
    assert np.isnan(compare([[np.nan, np.nan]] * 3).cells["a", "CT", "ASSD", "average"].low)


@pytest.mark.filterwarnings("error")
def test_several_rare_classes_leave_no_interval_of_their_average():
    """Each is in all but an eighth of the draws, but both are in too few."""
    table = np.full((40, 2), np.nan)
    table[:2, 0] = table[2:4, 1] = 3.0, 5.0
    found = intervals(table)
    assert not np.isnan(found[:, :2]).any()
    assert np.isnan(found[:, 2]).all()


def test_classes_that_the_same_few_subjects_have_leave_an_interval():
    """In 0.7^10 = 3 % of the draws all of them are missing at once."""
    table = np.full((10, 2), np.nan)
    table[:3] = [1.0, 2.0], [2.0, 3.0], [3.0, 4.0]
    classes = {f"organ{i}": i for i in range(1, 12)}
    cases = [replace(case, metrics=dict.fromkeys(classes, case.metrics["liver"])) for case in evaluation(table).cases]
    both = Evaluation(classes, 2.0, cases, [])
    cell = Comparison({"a": both}, {}).cells["a", "CT", "ASSD", "average"]
    assert (cell.low, cell.high) == (1, 3)


def test_json_has_every_number():
    comparison = compare([[1.0, 2.0], [3.0, 4.0]], [[1.5, 2.0], [3.0, 5.0]])
    entry = comparison.as_json()["predictions"]["b"]["CT"]["ASSD"]["spleen"]
    assert (entry["mean"], entry["n"]) == (3.5, 2)
    assert entry["against_first"] == vars(comparison.tests["b", "CT", "ASSD", "spleen"])
    assert "against_first" not in comparison.as_json()["predictions"]["a"]["CT"]["ASSD"]["spleen"]


def test_one_table_of_all_predictions():
    subjects = {"case0": "x", "case1": "x"}
    table = compare([[1.0, 2.0], [3.0, np.nan]], [[1.5, 2.0], [3.0, 5.0]], subjects=subjects).table
    rows = table[table["metric"] == "ASSD"]
    assert [tuple(row) for row in rows[["prediction", "subject", "case", "class", "undefined"]].to_numpy()] == [
        (name, "x", case, organ, (name, case, organ) == ("a", "case1", "spleen"))
        for name in "ab"
        for case in ("case0", "case1")
        for organ in CLASSES
    ]
    assert rows["value"].tolist() == pytest.approx([1.0, 2.0, 3.0, np.nan, 1.5, 2.0, 3.0, 5.0], nan_ok=True)


def test_a_case_with_several_undefined_classes_counts_once():
    cells = compare([[np.nan, np.nan], [1.0, np.nan], [1.0, 2.0]]).cells
    assert [cells["a", "CT", "ASSD", column].undefined for column in ("liver", "spleen", "average")] == [1, 2, 2]
