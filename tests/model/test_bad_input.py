"""What prediction refuses or survives beside what test_predictor.py has; nnU-Net's own predictor, too."""

import json
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
