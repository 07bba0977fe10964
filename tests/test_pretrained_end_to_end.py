"""Each foundation planner from raw scans over converted weights to a prediction, through nnU-Net's own functions."""

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.run.run_training import run_training

from nnunet_cmc.commands.main import main
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.universal import CMCPlannerUniversal
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer

FIXTURES = Path(__file__).parent / "networks" / "fixtures"
SAM_SIZES = {"image_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "out_channels": 32}


@pytest.mark.parametrize(
    ("planner", "file", "sizes", "decoder_channels", "trainer"),
    [
        (
            CMCPlanner, "sam_tiny.pth", {**SAM_SIZES, "global_blocks": [1, 3], "skip_channels": [4, 8]}, (4, 4, 8),
            "CMCTrainerAdapters",
        ),
        (CMCPlannerUniversal, "unet_tiny_base2.pth", {"channels": [4, 8, 16, 32], "stem": 2}, (4, 8, 16), "CMCTrainer"),
    ],
)  # fmt: skip
def test_from_scans_and_weights_to_a_prediction(
    make_dataset, nnunet_folders, monkeypatch, planner, file, sizes, decoder_channels, trainer
):
    """The planners' encoders in the size of the test's weight files."""
    monkeypatch.setattr(planner, "patch_size", 16)
    monkeypatch.setattr(planner, "batch_size", 2)
    monkeypatch.setattr(planner, "encoder_kwargs", planner.encoder_kwargs | sizes)
    monkeypatch.setattr(planner, "decoder_channels", decoder_channels)
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    monkeypatch.setattr(CMCTrainer, "epochs", 1)
    monkeypatch.setattr(CMCTrainer, "iterations", (2, 1))
    raw = make_dataset(cases())
    preprocessed = nnunet_folders / "preprocessed" / raw.name
    preprocessed.mkdir()
    fingerprint = {"spacings": [[1.0] * 3] * 6, "shapes_after_crop": [[24] * 3] * 6}
    (preprocessed / "dataset_fingerprint.json").write_text(
        json.dumps({**fingerprint, "median_relative_size_after_cropping": 1.0})
    )
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["ct0", "mr0"], "val": ["ct1", "mr1"]}]))
    name = planner(1).plan_experiment()["plans_name"]
    preprocess_dataset(1, name, ("3d_fullres",), (1,))

    init = nnunet_folders / "init.pth"
    assert main(["weights", str(FIXTURES / file), "-d", "1", "-p", name, "-o", str(init)]) == 0
    run_training("1", "3d_fullres", 0, trainer, name, pretrained_weights=str(init), device=torch.device("cpu"))
    model = nnunet_folders / "results" / raw.name / f"{trainer}__{name}__3d_fullres"
    assert "Training from pretrained weights" in next((model / "fold_0").glob("training_log*.txt")).read_text()

    predictor = nnUNetPredictor(perform_everything_on_device=False, device=torch.device("cpu"), use_mirroring=False)
    predictor.initialize_from_trained_model_folder(str(model), (0,), "checkpoint_final.pth")
    (nnunet_folders / "out").mkdir()
    files = [[str(raw / "imagesTr" / "mr1_0001.nii.gz")]]  # the file of the other modality is just not given
    predictor.predict_from_files_sequential(files, [str(nnunet_folders / "out" / "mr1")])
    prediction = SimpleITK.ReadImage(str(nnunet_folders / "out" / "mr1.nii.gz"))
    assert prediction.GetSize() == (24, 24, 24)
    assert set(np.unique(SimpleITK.GetArrayFromImage(prediction))) <= {0, 1, 2}


def cases():
    """Two labelled scans of each of CT and MR, and an unlabelled one."""
    rng = np.random.default_rng(0)
    label = np.zeros((24, 24, 24), np.uint8)
    label[4:12, 5:15, 6:16], label[14:20, 5:15, 6:16] = 1, 2

    def scan(channel):
        contrast = label * (60.0 - 160 * channel)
        return {channel: (100 + 200 * channel + contrast + rng.normal(0, 10, label.shape)).astype(np.float32)}

    labeled = {f"{name}{i}": (scan(c), label) for c, name in enumerate(("ct", "mr")) for i in (0, 1)}
    return labeled | {"ct2": (scan(0), None), "mr2": (scan(1), None)}
