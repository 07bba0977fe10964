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
    means = table.groupby(["metric", "class"], observed=True)["value"].mean()
    for metric in METRICS:
        expected = [evaluation.statistic(name, metric).mean for name in ("liver", "spleen")]
        assert list(means[metric]) == pytest.approx(expected)
    assert list(table["modalities"].cat.categories) == ["CT", "MR", "CT+MR"]


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
    assert evaluation.mean("Dice").mean == pytest.approx(
        np.mean([evaluation.statistic(name, "Dice").mean for name in ("liver", "spleen")])
    )
