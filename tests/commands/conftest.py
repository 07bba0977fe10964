"""A dataset with test cases in two modalities and a model of random weights, tiny and as nnU-Net leaves it."""

import json
import shutil

import numpy as np
import pytest
import torch

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
