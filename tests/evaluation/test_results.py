"""Statistics never average over an undefined value without saying how many are left."""

from math import isnan, nan

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.results import Statistic


@given(st.lists(st.floats(0, 100), min_size=2), st.integers(0, 5))
def test_statistic_of_defined_values(values, undefined):
    found = Statistic.of([*values, *[nan] * undefined])
    assert found.n == len(values)
    assert (found.mean, found.std) == pytest.approx((np.mean(values), np.std(values, ddof=1)))


def test_statistic_of_too_few_values():
    assert Statistic.of([nan, 2.0]).mean == 2
    assert isnan(Statistic.of([nan, 2.0]).std)
    assert Statistic.of([nan]).n == 0
    assert isnan(Statistic.of([nan]).mean)


def test_the_table_has_every_number_once(folders, dataset_json):
    evaluation = evaluate_folder(*folders, dataset_json)
    table = evaluation.table
    assert list(table) == ["case", "modalities", "class", "metric", "value", "undefined"]
    found = {(row.case, row.modalities, row[3], row.metric): row.value for row in table.itertuples()}
    expected = {
        (case.case, case.modalities, name, metric): value
        for case in evaluation.cases
        for name, metrics in case.metrics.items()
        for metric, value in metrics.items()
    }
    assert len(found) == len(table)
    assert found == pytest.approx(expected, nan_ok=True)
    undefined = table[table["undefined"]]  # d lacks the spleen; where neither has one, as in b, nothing is left out
    assert set(zip(undefined["case"], undefined["class"], undefined["metric"], strict=True)) == {
        ("d", "spleen", "ASSD"), ("d", "spleen", "HD95")
    }  # fmt: skip
    assert list(table["modalities"].cat.categories) == ["CT", "MR", "CT+MR"]


def test_means_over_cases(folders, dataset_json):
    """By hand: the liver is 3 x 6 x 5 voxels of 3 x 1.5 x 1 mm, moved by 0, 1, 2 and 1 mm along its 5.

    Of its 78 surface voxels 22 are 1 mm away where it is moved by 1 mm; by 2 mm: 14 are 1, 2 are 1.5 and 20 are 2 mm
    away. The spleen is found in a and c, missed in d, and in b there is none.
    """
    evaluation = evaluate_folder(*folders, dataset_json)
    liver = {
        "Dice": (1 + 4 / 5 + 3 / 5 + 4 / 5) / 4,
        "IoU": (1 + 4 / 6 + 3 / 7 + 4 / 6) / 4,
        "ASSD": (0 + 22 + (14 + 2 * 1.5 + 20 * 2) + 22) / 78 / 4,
        "HD95": (0 + 1 + 2 + 1) / 4,
        "NSD": 1,
    }
    spleen = {"Dice": 2 / 3, "IoU": 2 / 3, "ASSD": 0, "HD95": 0, "NSD": 2 / 3}
    for name, expected in {"liver": liver, "spleen": spleen}.items():
        assert {metric: evaluation.statistic(name, metric).mean for metric in METRICS} == pytest.approx(expected)
    assert evaluation.mean("Dice").mean == pytest.approx((0.8 + 2 / 3) / 2)


def test_statistics_are_described_by_class_and_modality(folders, dataset_json):
    evaluation = evaluate_folder(*folders, dataset_json)
    values = [case.metrics["spleen"]["ASSD"] for case in evaluation.cases if case.case in "ac"]
    expected = {"mean": np.mean(values), "std": np.std(values, ddof=1), "n": 2, "undefined": 1}
    assert evaluation.statistics.loc[("spleen", "ASSD")].to_dict() == pytest.approx(expected)
    assert evaluation.statistics_of_groups.loc[("MR", "spleen", "Dice"), "n"] == 0
    assert evaluation.statistics_of_groups.loc[("CT", "spleen", "ASSD"), "undefined"] == 1


def test_groups_and_means_of_an_evaluation(folders, dataset_json):
    evaluation = evaluate_folder(*folders, dataset_json)
    assert evaluation.groups == ["CT", "MR", "CT+MR"]
    assert [case.case for case in evaluation.of_group("CT")] == ["a", "d"]
    assert evaluation.statistic("spleen", "Dice", "CT") == Statistic(0.5, pytest.approx(0.5**0.5), 2)
    assert evaluation.statistic("spleen", "ASSD", "CT").n == 1  # d lacks the spleen: no distance
    assert evaluation.statistic("spleen", "Dice").n == 3  # b has none to find
    only_liver = evaluation.mean("Dice", "MR")
    assert (only_liver.n, only_liver.mean) == (1, evaluation.statistic("liver", "Dice", "MR").mean)
