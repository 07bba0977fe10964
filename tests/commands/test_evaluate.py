"""``nnunet_cmc evaluate`` from its arguments to its files."""

import argparse
import json
import re
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.commands import evaluate
from nnunet_cmc.commands.main import main

DATASET_JSON = {
    "channel_names": {"0": "CT", "1": "MR"},
    "labels": {"background": 0, "liver": 1},
    "file_ending": ".nii.gz",
    "cmc": {"version": 1, "present_channels": {"a": [0], "b": [1]}},
}


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """References, and predictions with the dataset.json that nnU-Net leaves there."""
    for variable in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.delenv(variable, raising=False)
    labels = np.zeros((5, 6, 7), np.uint8)
    labels[1:3, 2:4, 2:5] = 1
    for name in ("reference", "prediction"):
        (tmp_path / name).mkdir()
        for case in "ab":
            sitk.WriteImage(sitk.GetImageFromArray(labels), str(tmp_path / name / f"{case}.nii.gz"))
    (tmp_path / "prediction" / "dataset.json").write_text(json.dumps(DATASET_JSON))
    return tmp_path


def run(folders, *more):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    arguments = ["-r", str(folders / "reference"), "-p", str(folders / "prediction"), "-np", "1", *more]
    return evaluate.run(parser.parse_args(arguments))


def test_writes_beside_the_predictions_and_prints_the_table(folders, capsys):
    outcome = run(folders)
    summary = json.loads((folders / "prediction" / "summary.json").read_text())
    assert summary["foreground_mean"]["Dice"] == 1
    assert len((folders / "prediction" / "summary.csv").read_text().splitlines()) == 3
    printed = capsys.readouterr().out
    assert "CT: 1 case," in printed
    assert "MR: 1 case," in printed
    assert outcome.written == [folders / "prediction" / f"summary.{ending}" for ending in ("json", "csv", "md", "tex")]
    assert outcome.numbers["predictions"]["prediction"]["CT"]["Dice"]["liver"]["mean"] == 1


def test_output_folder_tolerance_and_predictions_without_reference(folders, capsys):
    (folders / "reference" / "b.nii.gz").unlink()
    labels = np.zeros((5, 6, 12), np.uint8)
    for name, start in {"reference": 2, "prediction": 5}.items():  # 3 mm apart
        moved = labels.copy()
        moved[1:3, 2:4, start : start + 4] = 1
        sitk.WriteImage(sitk.GetImageFromArray(moved), str(folders / name / "a.nii.gz"))
    outcome = run(folders, "-o", str(folders / "new" / "out"), "--tolerance", "3.5")
    summary = json.loads((folders / "new" / "out" / "summary.json").read_text())
    assert summary["cmc"]["nsd_tolerance_mm"] == 3.5
    assert summary["foreground_mean"]["NSD"] == 1
    assert summary["foreground_mean"]["HD95"] > 2, "so that the default tolerance would give less"
    assert not (folders / "prediction" / "summary.json").exists()
    printed = capsys.readouterr().out
    assert "NSD at 3.5 mm" in printed
    assert "prediction: predicted, but without a reference and not evaluated: b." in printed
    assert outcome.numbers["without_reference"] == {"prediction": ["b"]}


@pytest.mark.parametrize("dataset", ["777", "Dataset777_Liver"])
def test_dataset_of_nnunet_raw(folders, monkeypatch, capsys, dataset):
    raw = folders / "raw" / "Dataset777_Liver"
    raw.mkdir(parents=True)
    (raw / "dataset.json").write_text(json.dumps(DATASET_JSON | {"channel_names": {"0": "T1", "1": "T2"}}))
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    run(folders, "-d", dataset)
    assert "T2: 1 case," in capsys.readouterr().out


def refusal(folders, *more):
    with pytest.raises(ValueError) as caught:
        run(folders, *more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_dataset_that_cannot_be_found(folders, monkeypatch):
    assert "nnUNet_raw is not set" in refusal(folders, "-d", "777")
    monkeypatch.setenv("nnUNet_raw", str(folders))
    assert f"There is no dataset 777 in {folders}" in refusal(folders, "-d", "777")
    assert f"There is no dataset liver in {folders}" in refusal(folders, "-d", "liver")
    (folders / "Dataset777_Liver").mkdir()
    assert "Dataset777_Liver/dataset.json: convert" in refusal(folders, "-d", "777")
    (folders / "prediction" / "dataset.json").unlink()
    assert "name the dataset with -d" in refusal(folders)


def compare(folders, *predictions, more=()):
    parser = argparse.ArgumentParser()
    evaluate.add_arguments(parser)
    named = [word for prediction in predictions for word in ("-p", prediction)]
    evaluate.run(parser.parse_args(["-r", str(folders / "reference"), "-np", "1", *named, *more]))


def test_several_predictions_are_compared_in_a_folder_of_their_own(folders, capsys):
    shutil.copytree(folders / "prediction", folders / "other")
    shutil.copy(folders / "other" / "b.nii.gz", folders / "other" / "c.nii.gz")
    compare(folders, str(folders / "prediction"), f"0.1={folders / 'other'}", more=("-o", str(folders / "out")))
    found = {str(file.relative_to(folders / "out")) for file in (folders / "out").rglob("*.*") if file.is_file()}
    summaries = {f"{name}/summary.{ending}" for name in ("prediction", "0.1") for ending in ("json", "csv")}
    assert found == summaries | {f"comparison.{ending}" for ending in ("md", "tex", "json")}
    assert not (folders / "prediction" / "summary.json").exists()
    assert json.loads((folders / "out" / "comparison.json").read_text())["first"] == "prediction"
    printed, bars = capsys.readouterr()
    assert "Difference to prediction" in printed
    assert re.findall(r"^(\d of \d, [\w.]+): ", printed, re.MULTILINE) == ["1 of 2, prediction", "2 of 2, 0.1"]
    assert bars.count("Evaluating: 100%") >= 2
    assert "Computing intervals and tests: 100%" in bars
    assert "0.1: predicted, but without a reference and not evaluated: c." in printed


def test_names_of_predictions(tmp_path):
    (tmp_path / "a=b").mkdir()
    names = evaluate._named_folders([f"{tmp_path}/x/", "ours=runs/y", f"{tmp_path}/a=b", "z"])
    assert names == {"x": f"{tmp_path}/x/", "ours": "runs/y", "a=b": f"{tmp_path}/a=b", "z": "z"}
    with pytest.raises(ValueError, match=r"p/x and q/x are both named x: name them with -p NAME=FOLDER"):
        evaluate._named_folders(["p/x", "q/x"])
    for outside in ("..=runs/y", ".=runs/y", "/"):
        with pytest.raises(ValueError, match=f"{outside} names no folder for its results: name it with -p NAME=FOLDER"):
            evaluate._named_folders([outside])


def test_several_predictions_without_a_folder(folders):
    with pytest.raises(ValueError, match="name it with -o"):
        compare(folders, str(folders / "prediction"), f"again={folders / 'prediction'}")


def test_every_folder_is_looked_at_before_the_long_part(folders, monkeypatch):
    shutil.copytree(folders / "prediction", folders / "other")
    (folders / "other" / "b.nii.gz").unlink()
    monkeypatch.setattr(
        "nnunet_cmc.evaluation.folder_evaluation.evaluate_folder", lambda *_: pytest.fail("it was evaluated")
    )
    with pytest.raises(ValueError, match=r"other lacks the predictions of 1 of 2 reference cases: b;"):
        compare(folders, str(folders / "prediction"), str(folders / "other"), more=("-o", str(folders / "out")))


@pytest.mark.usefixtures("ordinary_user")
def test_an_output_that_cannot_be_written_to_is_noticed_before_the_long_part(folders, monkeypatch):
    monkeypatch.setattr(
        "nnunet_cmc.evaluation.folder_evaluation.evaluate_folder", lambda *_: pytest.fail("the long part")
    )
    (folders / "prediction").chmod(0o555)
    with pytest.raises(PermissionError):
        run(folders)
    (folders / "prediction").chmod(0o755)


@pytest.mark.parametrize("output", ["out", "out/below"])
def test_an_output_that_is_a_file(folders, capsys, output):
    (folders / "out").touch()
    named = ["-r", folders / "reference", "-p", folders / "prediction", "-o", folders / output]
    assert main(["evaluate", *map(str, named)]) == 1
    assert re.search(
        r"/out(/below)?: (File exists|Not a directory): name a folder, not a file\.\n", capsys.readouterr().err
    )


def test_a_full_disk(folders, full_disk):
    with full_disk(1500), pytest.raises(OSError) as error:
        run(folders, "-o", str(folders / "out"))
    assert error.value.filename == str(folders / "out" / "summary.json")
    assert not list((folders / "out").iterdir())


def test_stress_tests_need_the_report(folders):
    assert "add --report" in refusal(folders, "--stress", str(folders))
    assert "There is no" in refusal(folders, "--stress", str(folders), "--report")
    assert "both named out: name them with --stress NAME=" in refusal(
        folders, "--stress", "a/out", "--stress", "b/out", "--report"
    )


def test_report_with_the_scans_beside_the_labels_or_elsewhere(folders):
    assert "reference are not known: name their folder with -i" in refusal(folders, "--report")
    (folders / "reference").rename(folders / "labelsTs")
    (folders / "reference").symlink_to(folders / "labelsTs")
    assert f"{folders / 'imagesTs'} has no scan of 2 of 2 cases" in refusal(folders, "--report")
    (folders / "imagesTs").mkdir()
    for name in ("a_0000", "b_0001"):
        scan = sitk.GetImageFromArray(np.arange(210, dtype=np.float32).reshape(5, 6, 7))
        sitk.WriteImage(scan, str(folders / "imagesTs" / f"{name}.nii.gz"))
    run(folders, "--report")
    assert (folders / "prediction" / "report.html").stat().st_size > 50_000
    outcome = run(folders, "--report", "-i", str(folders / "imagesTs"), "-o", str(folders / "out"))
    assert {path.name for path in outcome.written} >= {"report.html", "figures", "cases", "open_case.py"}
    assert {folder.name for folder in (folders / "out" / "cases").iterdir()} == {"a", "b"}
