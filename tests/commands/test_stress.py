"""``nnunet_cmc stress`` with nnU-Net's predictor and a tiny network of random weights."""

import argparse
import json
from pathlib import Path

import pytest
import torch
from evil import Evil
from plans import make_plans

from nnunet_cmc.commands.main import main
from nnunet_cmc.commands.settings import keep_settings
from nnunet_cmc.commands.stress import _table, settings_of


def stress(dataset, output, *more):
    arguments = ["-d", "1", "-i", dataset / "imagesTs", "-r", dataset / "labelsTs", "-o", output, "-f", "0"]
    return main(["stress", *map(str, arguments), "-device", "cpu", *more])


def test_predicts_evaluates_and_draws(dataset, tmp_path, capsys):
    output = tmp_path / "out"
    assert stress(dataset, output) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert printed.index("Checking the model") < printed.index("2 cases with several modalities")
    assert "Drawing the figures." in printed
    assert len([line for line in printed.splitlines() if " mm " in line or " degrees " in line]) == 12
    assert "perform_everything_on_device" not in printed
    files = {path.name for path in output.iterdir()}
    figures = {"missing.png", "misalignment.png"}
    assert files == {"stress.csv", "stress.json", "settings.json", "log.txt", "predictions", *figures}
    assert len(list((output / "predictions").glob("*/?.nii.gz"))) == 15 * 2
    entries = {entry["condition"]: entry for entry in json.loads((output / "stress.json").read_text())["conditions"]}
    dice = {name: entry["mean"]["Dice"] for name, entry in entries.items()}
    assert len(set(dice.values())) > 5, "what is given makes a difference"
    for name in dice:
        (row,) = (line for line in printed.splitlines() if line.startswith(f"{name:<24}"))
        assert [float(cell) for cell in row.split()[-4::2]] == [round(dice[one], 3) for one in (name, "all")]

    before = (output / "stress.json").read_text()
    capsys.readouterr()
    assert stress(dataset, output, "--json") == 0
    assert (output / "stress.json").read_text() == before
    result = json.loads(capsys.readouterr().out)
    assert {"conditions": result["conditions"]} == json.loads(before)
    assert {Path(file).name for file in result["written"]} == {"stress.csv", "stress.json", "predictions", *figures}
    assert stress(dataset, output, "--seed", "1") == 1
    assert "is of another stress test, with other seed (" in capsys.readouterr().err


def test_the_table_marks_means_that_leave_out_cases():
    def entry(name, undefined, **others):
        classes = {"liver": {"ASSD": {"undefined": 0}}, "spleen": {"ASSD": {"undefined": undefined}}}
        return {"condition": name, "cases": 4, "mean": {"Dice": 0.8, "ASSD": 1.5}, "classes": classes, **others}

    _, _, every, ct, blank, note = _table([entry("all", 0), entry("CT", 1, complete=entry("all", 0))]).splitlines()
    assert every.split() == ["all", "4", "0.800", "1.50", "0.800", "1.50"]
    assert ct.split() == ["CT", "4", "0.800", "1.50†", "0.800", "1.50"]
    assert not blank
    assert note.startswith("† undefined in cases where a class is only in")
    assert "†" not in _table([entry("all", 0)])


def test_a_model_or_scans_that_have_changed_are_another_test(dataset, tmp_path):
    arguments = argparse.Namespace(folds=["0"], images=str(dataset / "imagesTs"), disable_tta=True, seed=0)
    model = dataset.parents[1] / "results" / dataset.name / "CMCTrainer__CMCNNUNetPlans__3d_fullres"

    def keep():
        keep_settings(tmp_path / "out", settings_of(arguments, model), "stress test")

    keep()
    keep()
    for file, what in (
        (model / "fold_0" / "checkpoint_final.pth", "model"),
        (model / "plans.json", "model"),
        (dataset / "imagesTs" / "x_0001.nii.gz", "images"),
    ):
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))  # of the same size
        with pytest.raises(ValueError, match=rf"another stress test, with other {what} \(.*settings.json\)"):
            keep()
        file.write_bytes(before)
    keep()


@pytest.mark.parametrize("part", ["plans.json", "fold_0/checkpoint_final.pth"])
def test_nothing_in_a_model_is_executed(dataset, tmp_path, capsys, monkeypatch, part):
    monkeypatch.chdir(tmp_path)
    model = dataset.parents[1] / "results" / dataset.name / "CMCTrainer__CMCNNUNetPlans__3d_fullres"
    if part == "plans.json":
        evil = make_plans({"name": "executed"})
        evil["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "os.mkdir"
        (model / part).write_text(json.dumps(evil))
    else:
        torch.save({**torch.load(model / part), "extra": Evil()}, model / part)
    assert stress(dataset, tmp_path / "out") == 1
    assert f"{model / part} may execute code when nnU-Net loads it (" in capsys.readouterr().err
    assert not Path("executed").exists()
    assert not (tmp_path / "out").exists()


def test_without_a_trained_model_or_cases(dataset, tmp_path, capsys, monkeypatch):
    assert stress(dataset, tmp_path / "out", "-p", "CMCTinyPlans") == 1
    assert "CMCTinyPlans__3d_fullres/fold_0/checkpoint_final.pth: train the model" in capsys.readouterr().err
    (dataset / "imagesTs" / "x_0000.nii.gz").unlink()
    (dataset / "imagesTs" / "y_0001.nii.gz").unlink()
    assert stress(dataset, tmp_path / "out") == 1
    assert "no case with several modalities (2 case(s) in all)" in capsys.readouterr().err
    assert stress(dataset, tmp_path / "out", "-d", "2") == 1
    assert "There is no dataset 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("nnUNet_results")
    assert stress(dataset, tmp_path / "out") == 1
    assert "nnUNet_results is not set" in capsys.readouterr().err
