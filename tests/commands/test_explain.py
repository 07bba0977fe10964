"""``nnunet_cmc explain`` with a tiny network of random weights."""

import json
import shutil
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import SimpleITK as sitk
import torch
from evil import Evil
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

from nnunet_cmc.commands.main import main
from nnunet_cmc.inference.activation_picture import in_lines


def explain(dataset, output, *more):
    arguments = ["-d", "1", "-i", dataset / "imagesTs", "-o", output, "-f", "0", "-device", "cpu", *more]
    return main(["explain", *map(str, arguments)])


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture
def another(dataset):
    """The same model under another trainer's name."""
    results = dataset.parents[1] / "results" / dataset.name
    model = "CMCTrainer__CMCNNUNetPlans__3d_fullres"
    shutil.copytree(results / model, results / model.replace("CMCTrainer_", "CMCTrainer_noCSC_", 1))
    return "CMCTrainer_noCSC"


def test_models_side_by_side_with_nnunets_own_prediction(dataset, another, tmp_path, capsys):
    alone, output = tmp_path / "alone", tmp_path / "out"
    assert explain(dataset, alone, "--cases", "x", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    assert all(Path(file).exists() for file in [*result["written"], *result["cases"]["x"]["CMCTrainer"].values()])
    assert {str(file.relative_to(alone)) for file in alone.rglob("*.*")} == {
        "x.png", "activation/CMCTrainer/x.nii.gz", "prediction/CMCTrainer/x.nii.gz"
    }  # fmt: skip
    assert explain(dataset, output, "-tr", "CMCTrainer", another, "-r", dataset / "labelsTs") == 0
    activation = read(output / "activation" / "CMCTrainer" / "x.nii.gz")
    assert activation.max() == 100
    np.testing.assert_array_equal(activation, read(output / "activation" / another / "x.nii.gz"))
    widths = [matplotlib.image.imread(folder / "x.png").shape[1] for folder in (alone, output)]
    assert widths[1] - widths[0] == 2 * 450  # the reference and a model, 3 inches each

    predictor = nnUNetPredictor(use_mirroring=False, device=torch.device("cpu"), allow_tqdm=False)
    model = dataset.parents[1] / "results" / dataset.name / "CMCTrainer__CMCNNUNetPlans__3d_fullres"
    predictor.initialize_from_trained_model_folder(str(model), ["0"])
    inputs = [[str(file) for file in sorted((dataset / "imagesTs").glob(f"{case}_*"))] for case in "xy"]
    predictor.predict_from_files_sequential(inputs, [str(tmp_path / case) for case in "xy"])
    for case in "xy":
        stock = read(tmp_path / f"{case}.nii.gz")
        assert len(np.unique(stock)) > 1
        same = stock == read(output / "prediction" / "CMCTrainer" / f"{case}.nii.gz")
        assert same.mean() > 0.97  # nnU-Net rounds the logits to float16, and those of random weights are close


def test_lies_on_the_scans_grid_whatever_its_orientation(dataset, tmp_path):
    assert explain(dataset, tmp_path / "before", "--cases", "x") == 0
    for file in (dataset / "imagesTs").glob("x_*.nii.gz"):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "PIR"), str(file))
    assert explain(dataset, tmp_path / "after", "--cases", "x") == 0
    before, after = (
        sitk.ReadImage(str(tmp_path / when / "activation" / "CMCTrainer" / "x.nii.gz")) for when in ("before", "after")
    )
    assert after.GetDirection() == sitk.ReadImage(str(file)).GetDirection()
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(after, "LPS"))
    np.testing.assert_allclose(turned, sitk.GetArrayFromImage(sitk.DICOMOrient(before, "LPS")).astype(int), atol=1)


def test_a_class_alone_and_one_modality(dataset, tmp_path):
    (dataset / "imagesTs" / "y_0001.nii.gz").unlink()
    assert explain(dataset, tmp_path / "all", "--cases", "y") == 0
    assert explain(dataset, tmp_path / "one", "--cases", "y", "--classes", "liver") == 0
    volumes = [read(tmp_path / which / "activation" / "CMCTrainer" / "y.nii.gz") for which in ("all", "one")]
    assert (volumes[0] != volumes[1]).any()


def test_a_scan_of_zeros_is_an_absent_modality(dataset, tmp_path):
    file = dataset / "imagesTs" / "y_0000.nii.gz"
    sitk.WriteImage(sitk.ReadImage(str(file)) * 0, str(file))
    assert explain(dataset, tmp_path / "zeros", "--cases", "y") == 0
    file.unlink()
    assert explain(dataset, tmp_path / "absent", "--cases", "y") == 0
    zeros, absent = (matplotlib.image.imread(tmp_path / name / "y.png") for name in ("zeros", "absent"))
    np.testing.assert_array_equal(zeros, absent)


def refusal(dataset, capsys, *more):
    assert explain(dataset, dataset / "out", *more) == 1
    return capsys.readouterr().err


def test_refusals(dataset, tmp_path, capsys):
    assert "There is no class heart; the dataset has liver, spleen" in refusal(dataset, capsys, "--classes", "heart")
    assert "has no scan of z: correct --cases" in refusal(dataset, capsys, "--cases", "z")
    assert "has no file that ends in .nii.gz" in refusal(dataset, capsys, "-i", tmp_path)
    assert "fold_0/checkpoint_final.pth: train the model" in refusal(dataset, capsys, "-tr", "CMCTrainerPaper_baseline")
    assert "lacks the references of x, y" in refusal(dataset, capsys, "-r", dataset / "imagesTr")
    references = shutil.copytree(dataset / "labelsTs", tmp_path / "references")
    label = sitk.ReadImage(str(references / "y.nii.gz"))
    sitk.WriteImage(sitk.ConstantPad(label, (0, 0, 0), (0, 0, 1)), str(references / "y.nii.gz"))
    said = refusal(dataset, capsys, "-r", references)
    assert "Case y: " in said
    assert "references/y.nii.gz is not on the grid of" in said


def test_nothing_in_a_model_is_executed_and_what_is_broken_is_named(dataset, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = dataset.parents[1] / "results" / dataset.name / "CMCTrainer__CMCNNUNetPlans__3d_fullres"
    checkpoint = model / "fold_0" / "checkpoint_final.pth"
    torch.save({**torch.load(checkpoint), "extra": Evil()}, checkpoint)
    assert "checkpoint_final.pth holds a Python object" in refusal(dataset, capsys)
    assert not Path("executed").exists()
    (model / "dataset.json").write_text("{")
    assert "dataset.json is not JSON" in refusal(dataset, capsys)


def test_names_of_trainers_break_between_their_words():
    assert in_lines("CMCTrainerPaper_crossModality_300epochs") == "CMCTrainerPaper_\ncrossModality_300epochs"
    assert in_lines("CMCTrainer_noCSC") == "CMCTrainer_noCSC"
    assert in_lines("MR of the second visit, moved") == "MR of the second visit,\nmoved"


def test_a_network_that_predicts_no_numbers_explains_nothing(dataset, tmp_path, capsys):
    (file,) = (dataset.parents[1] / "results" / dataset.name).rglob("checkpoint_final.pth")
    checkpoint = torch.load(file)
    weights = checkpoint["network_weights"]
    weights |= {name: weight * np.nan for name, weight in weights.items() if name.startswith("decoders")}
    torch.save(checkpoint, file)
    assert explain(dataset, tmp_path / "out", "--cases", "x") == 1
    assert f"Case x, predicted with {file}: the network's logits are NaN" in capsys.readouterr().err
    assert not list(tmp_path.glob("out/**/*.*"))


def test_a_scan_of_another_ending_is_named(dataset, tmp_path, capsys):
    (dataset / "imagesTs" / "x_0001.nii.gz").rename(dataset / "imagesTs" / "x_0001.NII.GZ")
    assert explain(dataset, tmp_path / "out") == 1
    assert "x_0001.NII.GZ looks like a scan, but is no file that ends in .nii.gz" in capsys.readouterr().err
