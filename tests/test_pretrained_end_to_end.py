"""Each planner from raw scans over converted weights to a prediction; training and prediction are stock commands."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
import torch
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset

from nnunet_cmc.commands.main import main
from nnunet_cmc.planners.cmc_planner import CMCPlanner
from nnunet_cmc.planners.tiny import CMCPlannerTiny
from nnunet_cmc.planners.universal import CMCPlannerUniversal
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer

FIXTURES = Path(__file__).parent / "networks" / "fixtures"
SAM_SIZES = {"image_size": 16, "patch_size": 8, "embed_dim": 48, "depth": 4, "num_heads": 4, "out_channels": 32}
SAM_BLOCKS = {"global_blocks": [1, 3], "skip_channels": [4, 8]}
OWN = "a checkpoint of the same plans"


@pytest.mark.parametrize(
    ("planner", "file", "sizes", "decoder_channels"),
    [
        (CMCPlanner, "sam_tiny.pth", {**SAM_SIZES, **SAM_BLOCKS}, (4, 4, 8)),
        # within one process, both files train and predict in every run (tests/trainers/test_pretrained.py)
        pytest.param(
            *(CMCPlannerUniversal, "unet_tiny_base2.pth", {"channels": [4, 8, 16, 32], "stem": 2}, (4, 8, 16)),
            marks=pytest.mark.slow,
        ),
        # what others plan, train and predict with in every run: the tests of inference, and the demo's
        pytest.param(
            *(CMCPlannerTiny, OWN, {"image_size": 16, "depth": 2, "global_blocks": [0, 1]}, (4, 4, 8)),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_from_scans_and_weights_to_a_prediction(
    make_dataset, nnunet_folders, monkeypatch, run_command, planner, file, sizes, decoder_channels
):
    """The planners' networks in the size of the test's weight files."""
    monkeypatch.setattr(planner, "patch_size", 16)
    monkeypatch.setattr(planner, "batch_size", 2)
    monkeypatch.setattr(planner, "encoder_kwargs", planner.encoder_kwargs | sizes)
    monkeypatch.setattr(planner, "decoder_channels", decoder_channels)
    raw = make_dataset(cases())
    preprocessed = nnunet_folders / "preprocessed" / raw.name
    preprocessed.mkdir()
    fingerprint = {"spacings": [[1.0] * 3] * 4, "shapes_after_crop": [[24] * 3] * 4}
    (preprocessed / "dataset_fingerprint.json").write_text(
        json.dumps({**fingerprint, "median_relative_size_after_cropping": 1.0})
    )
    (preprocessed / "splits_final.json").write_text(json.dumps([{"train": ["ct0", "mr0"], "val": ["ct1", "mr1"]}]))
    name = planner(1).plan_experiment()["plans_name"]
    preprocess_dataset(1, name, ("3d_fullres",), (1,))

    source = nnunet_folders / "trained.pth" if file is OWN else FIXTURES / file
    if file is OWN:
        save_untrained(preprocessed, name, source)
    init = nnunet_folders / "init.pth"
    assert main(["weights", str(source), "-d", "1", "-p", name, "-o", str(init)]) == 0

    environment = {**os.environ, "nnUNet_n_proc_DA": "0", "OMP_WAIT_POLICY": "PASSIVE"}
    which = (1, "3d_fullres", 0, "-tr", "CMCTrainer_smoke", "-p", name)
    run_command(
        "nnUNetv2_train", *which, "-pretrained_weights", init, "-device", "cpu", environment=environment
    )  # fmt: skip
    model = nnunet_folders / "results" / raw.name / f"CMCTrainer_smoke__{name}__3d_fullres" / "fold_0"
    log = next(model.glob("training_log*.txt")).read_text()
    assert "Training from pretrained weights: Adam at the fine-tuning learning rate 1e-05" in log
    moved = {key: change(model / "checkpoint_final.pth", init, key) for key in ("encoders.0.", "mia.")}
    assert all(0 < value < 1e-4 for value in moved.values()), moved  # a few steps of 1e-5 from the converted weights

    new = nnunet_folders / "new"
    new.mkdir()
    shutil.copy(raw / "imagesTr" / "mr1_0001.nii.gz", new)  # the file of the other modality is just not given
    run_command(
        "nnUNetv2_predict", "-d", 1, "-c", "3d_fullres", "-f", 0, "-tr", "CMCTrainer_smoke", "-p", name, "-i", new,
        "-o", nnunet_folders / "out", "-device", "cpu", "-npp", 0, "-nps", 0, environment=environment,
    )  # fmt: skip
    prediction = SimpleITK.ReadImage(str(nnunet_folders / "out" / "mr1.nii.gz"))
    assert prediction.GetSize() == (24, 24, 24)
    assert set(np.unique(SimpleITK.GetArrayFromImage(prediction))) <= {0, 1, 2}


def save_untrained(preprocessed, plans_name, file):
    """What CMCTrainer saves, before its first step."""
    plans, dataset_json = (json.loads((preprocessed / f"{name}.json").read_text()) for name in (plans_name, "dataset"))
    plans["continue_training"] = False
    trainer = CMCTrainer(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    trainer.save_checkpoint(str(file))


def change(checkpoint, init, prefix):
    """Largest change of a weight under ``prefix`` from the file of `nnunet_cmc weights` to the checkpoint."""
    trained = torch.load(checkpoint, weights_only=False)["network_weights"]
    loaded = torch.load(init, weights_only=True)["network_weights"]
    return max((trained[key] - loaded[key]).abs().max().item() for key in loaded if key.startswith(prefix))


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
