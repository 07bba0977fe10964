"""What prediction refuses or survives beside what test_predictor.py has; nnU-Net's own predictor, too."""

import json
import os
import re
import shutil
import sys
from io import StringIO

import pytest
import torch
from nnunetv2.inference import predict_from_raw_data
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.data.voxels import read_voxels
from nnunet_cmc.predictor import Predictor


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
    "fault", [without_number, without_number_beside_a_case, of_another_channel, without_scans, not_there]
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
    predictor.configuration_manager.configuration["preprocessor_name"] = "DefaultPreprocessor"
    files, _, _ = predictor._manage_input_and_output_lists(str(tmp_path), str(tmp_path))
    assert files == []


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
