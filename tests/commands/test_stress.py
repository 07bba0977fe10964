"""``nnunet_cmc stress`` with nnU-Net's predictor and a tiny network of random weights."""

import json
import shutil

import numpy as np
import pytest
import torch

from nnunet_cmc.commands.main import main
from nnunet_cmc.networks import CMCNet

NETWORK = {
    "patch_size": [16, 16, 16],
    "encoder": "residual",
    "encoder_kwargs": {"features_per_stage": [4, 8], "n_blocks_per_stage": [1, 1]},
    "decoder_channels": [4],
}
PLANS = {
    "dataset_name": "Dataset001_Test",
    "plans_name": "CMCPlans",
    "image_reader_writer": "SimpleITKIOWithReorient",
    "transpose_forward": [0, 1, 2],
    "transpose_backward": [0, 1, 2],
    "label_manager": "LabelManager",
    "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
    "configurations": {
        "3d_fullres": {
            "data_identifier": "CMCPlans_3d_fullres",
            "preprocessor_name": "CMCPreprocessor",
            "batch_size": 2,
            "patch_size": [16, 16, 16],
            "spacing": [2.0, 2.0, 2.0],
            "normalization_schemes": ["ZScoreNormalization"] * 2,
            "use_mask_for_norm": [False, False],
            "resampling_fn_data": "resample_data_or_seg_to_shape",
            "resampling_fn_seg": "resample_data_or_seg_to_shape",
            "resampling_fn_data_kwargs": {"is_seg": False, "order": 1},
            "resampling_fn_seg_kwargs": {"is_seg": True, "order": 0},
            "resampling_fn_probabilities": "resample_data_or_seg_to_shape",
            "resampling_fn_probabilities_kwargs": {"is_seg": False, "order": 1},
            "architecture": {
                "network_class_name": "nnunet_cmc.networks.CMCNet",
                "_kw_requires_import": [],
                "arch_kwargs": NETWORK,
            },
        }
    },
}


@pytest.fixture
def dataset(make_dataset, write_volume, monkeypatch):
    """A raw dataset with two test cases of 16^3 voxels in both modalities, and a trained model of random weights."""
    monkeypatch.setattr("nnunetv2.configuration.default_num_processes", 1)
    rng = np.random.default_rng(0)
    label = np.zeros((16, 16, 16), np.uint8)
    label[4:10, 4:12, 4:12] = 1
    folder = make_dataset({"train": ({0: 1.0 + label, 1: 1.0 + label}, label)}, spacing=(2.0, 2.0, 2.0))
    for case in ("x", "y"):
        for channel in (0, 1):
            volume = (5.0 + label + rng.normal(0, 0.3, label.shape)).astype(np.float32)
            write_volume(folder / "imagesTs" / f"{case}_{channel:04d}.nii.gz", volume, (2.0, 2.0, 2.0))
        write_volume(folder / "labelsTs" / f"{case}.nii.gz", label, (2.0, 2.0, 2.0))
    model = folder.parents[1] / "results" / folder.name / "CMCTrainer__CMCPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    (model / "plans.json").write_text(json.dumps(PLANS))
    shutil.copy(folder / "dataset.json", model)
    torch.manual_seed(0)
    checkpoint = {
        "network_weights": CMCNet(2, 3, **NETWORK).state_dict(),
        "trainer_name": "CMCTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    return folder


def stress(dataset, output, *more):
    arguments = ["-d", "1", "-i", dataset / "imagesTs", "-r", dataset / "labelsTs", "-o", output, "-f", "0"]
    return main(["stress", *map(str, arguments), "-device", "cpu", *more])


def test_predicts_judges_and_draws(dataset, tmp_path, capsys):
    output = tmp_path / "out"
    assert stress(dataset, output) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "2 cases with several modalities" in printed
    assert len([line for line in printed.splitlines() if " mm " in line or " degrees " in line]) == 12
    assert "perform_everything_on_device" not in printed
    files = {path.name for path in output.iterdir()}
    figures = {"missing.png", "misalignment.png"}
    assert files == {"stress.csv", "stress.json", "settings.json", "log.txt", "predictions", *figures}
    assert len(list((output / "predictions").glob("*/?.nii.gz"))) == 15 * 2
    entries = {entry["condition"]: entry for entry in json.loads((output / "stress.json").read_text())["conditions"]}
    dice = {name: entry["mean"]["Dice"] for name, entry in entries.items()}
    assert len(set(dice.values())) > 5, "what is given makes a difference"

    before = (output / "stress.json").read_text()
    assert stress(dataset, output) == 0
    assert (output / "stress.json").read_text() == before
    assert stress(dataset, output, "--seed", "1") == 1
    assert "has predictions of another stress test" in capsys.readouterr().err


def test_without_a_trained_model_or_cases(dataset, tmp_path, capsys, monkeypatch):
    assert stress(dataset, tmp_path / "out", "-p", "CMCTinyPlans") == 1
    assert "CMCTinyPlans__3d_fullres/fold_0/checkpoint_final.pth: train the model" in capsys.readouterr().err
    (dataset / "imagesTs" / "x_0000.nii.gz").unlink()
    (dataset / "imagesTs" / "y_0001.nii.gz").unlink()
    assert stress(dataset, tmp_path / "out") == 1
    assert "no case with several modalities (2 case(s) in all)" in capsys.readouterr().err
    assert stress(dataset, tmp_path / "out", "-d", "2") == 1
    assert "There is not exactly one dataset 2" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
    monkeypatch.delenv("nnUNet_results")
    assert stress(dataset, tmp_path / "out") == 1
    assert "nnUNet_results is not set" in capsys.readouterr().err
