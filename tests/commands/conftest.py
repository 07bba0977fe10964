"""A dataset with test cases in two modalities and a model of random weights, tiny and as nnU-Net leaves it."""

import json
import shutil

import numpy as np
import pytest
import torch
from plans import make_plans

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.trainers.build import build_network
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer


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
    model = folder.parents[1] / "results" / folder.name / "CMCTrainer__CMCNNUNetPlans__3d_fullres"
    (model / "fold_0").mkdir(parents=True)
    plans = make_plans(spacing=[2.0, 2.0, 2.0])
    (model / "plans.json").write_text(json.dumps(plans))
    shutil.copy(folder / "dataset.json", model)
    torch.manual_seed(0)
    network = build_network(CMCTrainer, plans, "3d_fullres", DatasetDescription.read(folder / "dataset.json"))
    checkpoint = {
        "network_weights": network.state_dict(),
        "trainer_name": "CMCTrainer",
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    return folder
