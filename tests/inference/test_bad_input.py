"""What prediction refuses or survives beside what test_predictor.py has; nnU-Net's own predictor, too."""

import json
import os
import re
import shutil
import sys
from io import StringIO

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.data.reading.voxels import read_voxels
from nnunet_cmc.inference.checked_predictor import CheckedPredictor
from nnunet_cmc.inference.predictor import Predictor


def model_of(tiny, tmp_path, **changes):
    """A copy of the model whose dataset.json is changed."""
    model = tmp_path / "model"
    shutil.copytree(tiny.model, model)
    dataset_json = json.loads((model / "dataset.json").read_text())
    (model / "dataset.json").write_text(json.dumps(dataset_json | changes))
    return model


def stock(model) -> nnUNetPredictor:
    """What nnUNetv2_predict predicts with."""
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(model), ["0"])
    return predictor


def test_nnunet_is_told_of_another_number_of_classes(tiny, tmp_path):
    model = model_of(tiny, tmp_path, labels={"background": 0, "block": 1, "more": 2})
    with pytest.raises(ValueError, match=r"do not fit the network .*size mismatch.*: use those that they") as error:
        stock(model).predict_from_files_sequential([[str(tiny.new / "ct_0000.nii.gz")]], [str(tmp_path / "out")])
    assert "\n" not in str(error.value)
    assert not list(tmp_path.glob("out*"))


def test_nnunet_is_told_of_a_modality_that_the_model_has_not(tiny, tmp_path):
    shutil.copy(tiny.new / "ct_0000.nii.gz", tmp_path / "ct_0002.nii.gz")
    with pytest.raises(ValueError, match=r"Case ct: .*ct_0002.nii.gz is of channel 2, but the dataset has 2 channel"):
        stock(tiny.model).predict_from_files_sequential([[str(tmp_path / "ct_0002.nii.gz")]], [str(tmp_path / "out")])
    assert not list(tmp_path.glob("out*"))


def with_nan(tiny, tmp_path, fold=0):
    """A copy of the model of which one fold has weights that are NaN."""
    model = model_of(tiny, tmp_path)
    checkpoint = torch.load(model / "fold_0" / "checkpoint_final.pth", weights_only=False)
    weights = checkpoint["network_weights"]
    weights |= {name: weight * np.nan for name, weight in weights.items() if name.startswith("decoders")}
    (model / f"fold_{fold}").mkdir(exist_ok=True)
    torch.save(checkpoint, model / f"fold_{fold}" / "checkpoint_final.pth")
    return model


@pytest.mark.parametrize("fold", [0, 1])
def test_logits_that_are_nan_are_no_background(tiny, tmp_path, fold, capsys):
    model, out = with_nan(tiny, tmp_path, fold), tmp_path / "out"
    out.mkdir()
    files = [[str(tiny.new / f"{name}.nii.gz")] for name in ("ct_0000", "mr_0001")]
    sentence = f"Case ct, predicted with {model}/fold_{fold}/checkpoint_final.pth: the network's logits are NaN, or"
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False, use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(model), [*range(fold + 1)])
    with pytest.raises(ValueError, match=re.escape(sentence)):
        predictor.predict_from_files_sequential(files, [str(out / "ct"), str(out / "mr")])
    ours = Predictor(model, device="cpu")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        ours.predict_files(files[0], out / "ct.nii.gz")
    with pytest.raises(ValueError, match=r"The case, predicted with"):
        ours.predict({"CT": np.ones((16, 16, 16))}, (1, 1, 1))
    failures = ours.predict_folder(tiny.new, out)
    assert failures["ct"].startswith(sentence)
    assert len(failures) == len({path.name[:-12] for path in tiny.new.iterdir()})
    assert not list(out.glob("*.nii.gz"))


def test_nor_in_nnunets_validation_of_a_training(tiny, tmp_path):
    """Which gives its predictor the network, and each case without its name."""
    source = stock(with_nan(tiny, tmp_path))
    predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
    managers = source.plans_manager, source.configuration_manager
    predictor.manual_initialization(source.network, *managers, None, source.dataset_json, "CMCTrainer", None)
    with pytest.raises(ValueError, match="the network's logits are NaN"):
        predictor.predict_sliding_window_return_logits(torch.ones(2, 16, 16, 16))


def test_without_a_gpu_one_is_told_of_the_cpu(tiny, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    predictor = nnUNetPredictor(device=torch.device("cuda"), allow_tqdm=False)
    with pytest.raises(ValueError, match=r"finds no GPU here \(cuda\): compute on the CPU, with -device cpu"):
        predictor.initialize_from_trained_model_folder(str(tiny.model), ["0"])
    with pytest.raises(ValueError, match=r"finds no GPU here \(cuda\): .* Python device=\"cpu\""):
        Predictor(tiny.model, device="cuda")


def test_each_case_says_what_it_is_predicted_from(tiny, tmp_path, capsys):
    cases = tmp_path / "cases"
    shutil.copytree(tiny.new, cases, ignore=shutil.ignore_patterns("small*", "oblique*", "mirrored*"))
    shutil.copy(cases / "mr_0001.nii.gz", cases / "zero_0001.nii.gz")
    mr = sitk.ReadImage(str(cases / "mr_0001.nii.gz"))
    sitk.WriteImage(mr * 0, str(cases / "zero_0000.nii.gz"))
    (cases / "._mr_0001.nii.gz").write_bytes(b"\0\5\x16\7")  # as macOS writes them
    expected = {"both": "CT, MR", "ct": "CT", "mr": "MR", "zero": "MR"}
    predictor = stock(tiny.model)
    predictor.predict_from_files_sequential(str(cases), str(tmp_path))
    printed = capsys.readouterr().out
    assert re.findall(r"^Case (\w+) is predicted from (.*)\.$", printed, re.MULTILINE) == list(expected.items())
    Predictor(tiny.model, device="cpu").predict_folder(cases, tmp_path / "out")
    printed = capsys.readouterr().out
    assert dict(re.findall(r"^Case (\w+) is predicted from (.*)\.$", printed, re.MULTILINE)) == expected
    assert {file.name for file in tmp_path.glob("*.nii.gz")} == {f"{case}.nii.gz" for case in expected}


def of_another_ending(tiny, folder):
    shutil.copy(tiny.new / "both_0001.nii.gz", folder)
    shutil.copy(tiny.new / "both_0000.nii.gz", folder / "both_0000.NII.GZ")
    return "both_0000.NII.GZ looks like a scan, but is no file that ends in .nii.gz, so it would be left out"


def test_a_file_of_another_ending_stops_a_folder(tiny, tmp_path):
    (tmp_path / "cases").mkdir()
    sentence = of_another_ending(tiny, tmp_path / "cases")
    with pytest.raises(ValueError, match=re.escape(sentence)):
        Predictor(tiny.model, device="cpu").predict_folder(tmp_path / "cases", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def without_number(tiny, folder):
    shutil.copy(tiny.new / "ct_0000.nii.gz", folder / "patient.nii.gz")
    return "patient.nii.gz has no channel number: name it CASE_0000.nii.gz for CT, and so on."


def without_number_beside_a_case(tiny, folder):
    shutil.copy(tiny.new / "ct_0000.nii.gz", folder / "pa_0000.nii.gz")  # nnU-Net takes "patient" for this case's name
    return without_number(tiny, folder)


def of_another_channel(tiny, folder):
    shutil.copy(tiny.new / "ct_0000.nii.gz", folder / "pa_0002.nii.gz")
    return "pa_0002.nii.gz is of channel 2, but the dataset has 2 channel(s), 0 to 1 (CT, MR): rename or remove it."


def without_scans(tiny, folder):
    return "has no file that ends in .nii.gz: give the folder of the scans."


def not_there(tiny, folder):
    folder.rmdir()
    return "There is no folder"


@pytest.mark.parametrize(
    "fault",
    [without_number, without_number_beside_a_case, of_another_channel, of_another_ending, without_scans, not_there],
)
def test_nnunet_is_told_of_a_folder_that_holds_no_cases(tiny, tmp_path, fault):
    (tmp_path / "cases").mkdir()
    sentence = fault(tiny, tmp_path / "cases")
    with pytest.raises(ValueError, match=re.escape(sentence)) as error:
        stock(tiny.model).predict_from_files(str(tmp_path / "cases"), str(tmp_path / "out"))
    assert str(tmp_path / "cases") in str(error.value)
    assert "\n" not in str(error.value)
    assert not list((tmp_path / "out").glob("*.nii.gz"))


@pytest.mark.parametrize("fault", [without_number, without_number_beside_a_case, without_scans])
def test_the_command_is_told_of_a_folder_that_holds_no_cases(tiny, tmp_path, run_command, fault):
    (tmp_path / "cases").mkdir()
    sentence = fault(tiny, tmp_path / "cases")
    output = run_command(
        "nnUNetv2_predict_from_modelfolder", "-m", tiny.model, "-f", 0, "-i", tmp_path / "cases",
        "-o", tmp_path / "out", "-device", "cpu", "-npp", 1, "-nps", 1, environment=dict(os.environ), fails=True,
    )  # fmt: skip
    assert sentence in output
    assert "IndexError" not in output
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_models_of_others_and_lists_of_files_are_left_to_nnunet(in_tiny, tmp_path):
    predictor = stock(in_tiny.model)
    files, _, _ = predictor._manage_input_and_output_lists([["x.nii.gz"]], str(tmp_path))
    assert files == [["x.nii.gz"]]
    assert type(predictor) is CheckedPredictor
    model = model_of(in_tiny, tmp_path)
    plans = json.loads((model / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["preprocessor_name"] = "DefaultPreprocessor"
    (model / "plans.json").write_text(json.dumps(plans))
    predictor = stock(model)
    assert type(predictor) is nnUNetPredictor
    files, _, _ = predictor._manage_input_and_output_lists(str(tmp_path), str(tmp_path))
    assert files == []


def test_files_of_two_cases_are_not_predicted_as_one(tiny, tmp_path):
    shutil.copy(tiny.new / "both_0001.nii.gz", tmp_path / "other_0001.nii.gz")
    files = [str(tiny.new / "both_0000.nii.gz"), str(tmp_path / "other_0001.nii.gz")]
    sentence = r"both_0000.nii.gz and .*other_0001.nii.gz are of different cases, as their names say: predict each"
    with pytest.raises(ValueError, match=sentence):
        Predictor(tiny.model, device="cpu").predict_files(files, tmp_path / "out.nii.gz")
    with pytest.raises(ValueError, match=sentence):
        stock(tiny.model).predict_from_files_sequential([files], [str(tmp_path / "out")])
    with pytest.raises(ValueError, match=r"A case has no channel file: give a CASE_0000.nii.gz or more"):
        stock(tiny.model).predict_from_files_sequential([[]], [str(tmp_path / "out")])
    for name in ("both_0001.nii", "both_0001.NII.gz"):
        with pytest.raises(ValueError, match=rf"{name} has no channel number: name it CASE_0000\.nii\.gz"):
            Predictor(tiny.model, device="cpu").predict_files([files[0], tmp_path / name])
    assert not list(tmp_path.glob("out*"))


def test_one_path_is_a_case_of_one_file(tiny):
    predictor, file = Predictor(tiny.model, device="cpu", mirroring=False), tiny.new / "ct_0000.nii.gz"
    one, listed = (sitk.GetArrayFromImage(predictor.predict_files(given)) for given in (str(file), [file]))
    np.testing.assert_array_equal(one, listed)


def test_a_full_disk_leaves_no_half_of_a_prediction(tiny, tmp_path, full_disk):
    predictor = Predictor(tiny.model, device="cpu", mirroring=False)
    out = tmp_path / "out.nii.gz"
    with full_disk(200), pytest.raises(OSError, match="for lack of space: free some, or choose another disk"):
        predictor.predict_files([tiny.new / "ct_0000.nii.gz"], out)
    assert not list(tmp_path.iterdir())
    predictor.predict_files([tiny.new / "ct_0000.nii.gz"], out)
    assert read_voxels(out).size


def test_a_full_disk_stops_nnunet(tiny, tmp_path, full_disk, monkeypatch):
    monkeypatch.setattr(predict_from_raw_data, "save_json", lambda *_, **__: None)  # larger than the label map
    files, out = [[str(tiny.new / "ct_0000.nii.gz")]], [str(tmp_path / "ct")]
    monkeypatch.setattr(sys, "stdout", StringIO())  # pytest keeps it in a file
    with full_disk(200), pytest.raises(OSError, match="for lack of space: free some, or choose another disk"):
        stock(tiny.model).predict_from_files_sequential(files, out)
    assert not list(tmp_path.glob("**/ct*"))


def test_outputs_that_cannot_be_are_noticed_before_the_work(tiny, tmp_path, monkeypatch):
    predictor = Predictor(tiny.model, device="cpu")
    monkeypatch.setattr(predictor, "_predict", None)
    for output, sentence in {
        tmp_path / "none" / "out.nii.gz": r"There is no folder .*none for out\.nii\.gz: make it, or name another one",
        tmp_path / "out.txt": r"out\.txt has no ending of an image: name a file that ends in one of \.nii\.gz, ",
    }.items():
        with pytest.raises(ValueError, match=sentence):
            predictor.predict_files([tiny.new / "ct_0000.nii.gz"], output)
    assert not list(tmp_path.iterdir())


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_that_cannot_be_written_to(tiny, tmp_path):
    (tmp_path / "out").mkdir(mode=0o555)
    with pytest.raises(PermissionError):
        Predictor(tiny.model, device="cpu").predict_folder(tiny.new, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())
