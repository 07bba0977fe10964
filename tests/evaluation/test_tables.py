"""The screen table, the summary that nnU-Net must be able to read, and the CSV."""

import csv
import json
import re
from math import isnan
from multiprocessing.pool import ThreadPool
from types import SimpleNamespace

import pytest
import SimpleITK as sitk

from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.tables import format_table, one_sided, save_summary, save_summary_csv


@pytest.fixture
def evaluation(folders, dataset_json):
    return evaluate_folder(*folders, dataset_json)


def test_summary_is_read_by_nnunet_and_holds_its_numbers(evaluation, folders, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import compute_metrics, load_summary_json
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    save_summary(evaluation, tmp_path / "summary.json")
    summary = load_summary_json(str(tmp_path / "summary.json"))
    assert set(summary["mean"]) == {1, 2}
    for entry in summary["metric_per_case"]:
        theirs = compute_metrics(entry["reference_file"], entry["prediction_file"], SimpleITKIO(), [1, 2])
        for label in (1, 2):
            ours = entry["metrics"][label]
            assert set(ours) == {*theirs["metrics"][label], "ASSD", "HD95", "NSD"}
            for key, value in theirs["metrics"][label].items():
                assert ours[key] == (None if isnan(value) else pytest.approx(float(value)))
    for label, means in summary["mean"].items():
        for metric, mean in means.items():
            values = [entry["metrics"][label][metric] for entry in summary["metric_per_case"]]
            defined = [value for value in values if value is not None]
            assert mean == pytest.approx(sum(defined) / len(defined))
    assert set(summary["foreground_mean"]) == set(summary["mean"][1])
    assert summary["foreground_mean"]["Dice"] == pytest.approx(sum(summary["mean"][k]["Dice"] for k in (1, 2)) / 2)
    assert summary["cmc"]["groups"]["CT"]["spleen"]["ASSD"]["n"] == 1
    assert summary["cmc"]["nsd_tolerance_mm"] == 2


def test_summary_is_json_where_metrics_are_undefined(evaluation, tmp_path):
    def no_constant(name):
        raise ValueError(f"{name} is not JSON")

    save_summary(evaluation, tmp_path / "summary.json")
    summary = json.loads((tmp_path / "summary.json").read_text(), parse_constant=no_constant)
    assert summary["metric_per_case"][1]["metrics"]["2"]["Dice"] is None
    assert summary["cmc"]["groups"]["MR"]["spleen"]["ASSD"] == {"mean": None, "std": None, "n": 0}


def test_nnunet_determines_postprocessing_from_the_summary(folders, dataset_json, write_labels, monkeypatch):
    """A voxel far off, of which nnU-Net finds that Dice is better without it, by our summary of Dice with it."""
    from nnunetv2.postprocessing.remove_connected_components import determine_postprocessing

    for file in folders[1].glob("*.nii.gz"):
        labels = sitk.GetArrayFromImage(sitk.ReadImage(str(folders[0] / file.name)))
        labels[0, 0, 0] = 1
        write_labels(file, labels)
    save_summary(evaluate_folder(*folders, dataset_json), folders[1] / "summary.json")
    before = (folders[1] / "summary.json").read_text()
    monkeypatch.setattr("multiprocessing.get_context", lambda kind: SimpleNamespace(Pool=ThreadPool))  # much faster
    plans = {"image_reader_writer": "SimpleITKIO", "label_manager": "LabelManager"}
    _, arguments = determine_postprocessing(
        str(folders[1]), str(folders[0]), plans, dataset_json, num_processes=1, keep_postprocessed_files=False
    )
    assert (folders[1] / "summary.json").read_text() == before, "it was read, not made anew"
    assert [one["labels_or_regions"] for one in arguments] == [1]


def test_summary_of_regions_has_nnunets_keys(folders, dataset_json, tmp_path):
    from nnunetv2.evaluation.evaluate_predictions import load_summary_json

    dataset_json["labels"] = {"background": 0, "both": [1, 2], "spleen": 2}
    save_summary(evaluate_folder(*folders, dataset_json), tmp_path / "summary.json")
    summary = load_summary_json(str(tmp_path / "summary.json"))
    assert set(summary["mean"]) == set(summary["metric_per_case"][0]["metrics"]) == {(1, 2), 2}


def test_csv_has_a_row_per_case_and_class(evaluation, tmp_path):
    save_summary_csv(evaluation, tmp_path / "summary.csv")
    with open(tmp_path / "summary.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["modalities"], row["class"]) for row in rows] == [
        (case.case, case.modalities, name) for case in evaluation.cases for name in ("liver", "spleen")
    ]
    for row, metrics in zip(rows, (m for case in evaluation.cases for m in case.metrics.values()), strict=True):
        assert {key: float(row[key]) for key in metrics} == pytest.approx(metrics, nan_ok=True)


def test_table_shows_every_group_with_its_numbers(evaluation):
    text = format_table(evaluation)
    titles = re.findall(r"^(.+): (\d) cases?,", text, re.MULTILINE)
    assert titles == [("CT", "2"), ("MR", "1"), ("CT+MR", "1"), ("all cases", "4")]
    assert all(metric in text for metric in METRICS)
    assert "NSD at 2 mm" in text
    liver = re.findall(r"^liver .*$", text, re.MULTILINE)
    assert len(liver) == 4
    dice, assd = evaluation.statistic("liver", "Dice"), evaluation.statistic("liver", "ASSD")
    assert f"{dice.mean:.3f} ± {dice.std:.3f} (4)" in liver[3]
    assert f"{assd.mean:.2f} ± {assd.std:.2f} (4)" in liver[3]
    spleen_in_mr = re.findall(r"^spleen .*$", text, re.MULTILINE)[1]
    assert spleen_in_mr.split() == ["spleen", *["-", "(0)"] * 5]
    assert re.findall(r"^mean of classes +(\S+)", text, re.MULTILINE)[3] == f"{evaluation.mean('Dice').mean:.3f}"


def test_table_of_a_class_that_is_named_as_the_mean(folders, dataset_json):
    dataset_json["labels"] = {"background": 0, "liver": 1, "mean of classes": 2}
    lines = format_table(evaluate_folder(*folders, dataset_json)).splitlines()
    names = [line.split("  ")[0] for line in lines[2:8] if not line.startswith("--")]
    assert names == ["class", "liver", "mean of classes", "mean of classes of all"]


def test_table_names_classes_in_only_one_of_reference_and_prediction(evaluation, folders, dataset_json):
    assert one_sided(evaluation) == ({"spleen": 1}, {})
    assert "In the reference but not predicted: spleen in 1 case." in format_table(evaluation)
    swapped = evaluate_folder(*reversed(folders), dataset_json)
    assert one_sided(swapped) == ({}, {"spleen": 1})
    assert "Predicted but not in the reference: spleen in 1 case." in format_table(swapped)


def test_table_marks_means_that_leave_out_cases(evaluation):
    ct, mr, *_ = format_table(evaluation).split("\n\n")
    spleen, mean = (re.split(" {2,}", line) for line in ct.splitlines() if line.startswith(("spleen", "mean of")))
    assert [("†" in cell) for cell in spleen[1:]] == [False, False, True, True, False]
    assert [("†" in cell) for cell in mean[1:]] == [False, False, True, True, False]
    assert "†" not in mr


def test_one_group_gives_one_table(folders, dataset_json):
    del dataset_json["cmc"]
    text = format_table(evaluate_folder(*folders, dataset_json))
    assert text.startswith("modality not stated: 4 cases")
    assert "all cases" not in text
