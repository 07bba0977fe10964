"""Stock nnU-Net at a budget, through the commands: an epoch of two iterations on the cases of these tests."""

import json
import os
import shutil

import numpy as np
import SimpleITK as sitk
import torch

from nnunet_cmc.trainers.budget import EPOCHS, ITERATIONS

UNET = {
    "n_stages": 2,
    "features_per_stage": [4, 8],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
    "norm_op_kwargs": {"eps": 1e-5, "affine": True},
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def test_the_stock_trainer_at_a_budget_trains_and_predicts(tiny, tmp_path, run_command):
    preprocessed = tmp_path / "preprocessed" / tiny.preprocessed.name
    shutil.copytree(tiny.preprocessed, preprocessed)
    plans = json.loads((preprocessed / "CMCNNUNetSmallPlans.json").read_text())
    configuration = plans["configurations"]["3d_fullres"]
    configuration["architecture"] = {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        "arch_kwargs": UNET,
    }
    configuration |= {"preprocessor_name": "DefaultPreprocessor", "normalization_schemes": ["ZScoreNormalization"] * 2}
    (preprocessed / "nnUNetPlans.json").write_text(json.dumps(plans | {"plans_name": "nnUNetPlans"}))
    cases = tmp_path / "cases"
    cases.mkdir()
    for channel in (0, 1):
        shutil.copy(tiny.new / f"both_000{channel}.nii.gz", cases)
    environment = {
        **os.environ, EPOCHS: "1", ITERATIONS: "2", "nnUNet_n_proc_DA": "0", "nnUNet_raw": str(tiny.root / "raw"),
        "nnUNet_preprocessed": str(preprocessed.parent), "nnUNet_results": str(tmp_path / "results"),
    }  # fmt: skip
    model = ("-tr", "nnUNetTrainer_cmcbudget", "-p", "nnUNetPlans", "-device", "cpu")
    run_command("nnUNetv2_train", 903, "3d_fullres", 0, *model, environment=environment)
    (file,) = (tmp_path / "results").rglob("checkpoint_final.pth")
    checkpoint = torch.load(file, weights_only=False)
    assert checkpoint["trainer_name"] == "nnUNetTrainer_cmcbudget"
    assert checkpoint["current_epoch"] == 1
    assert (file.parent / "validation" / "summary.json").is_file()
    run_command(
        "nnUNetv2_predict", "-d", 903, "-c", "3d_fullres", "-f", 0, *model, "-i", cases, "-o", tmp_path / "out",
        "-npp", 0, "-nps", 0, "--disable_tta", environment=environment,
    )  # fmt: skip
    prediction = sitk.ReadImage(str(tmp_path / "out" / "both.nii.gz"))
    assert prediction.GetSize() == sitk.ReadImage(str(cases / "both_0000.nii.gz")).GetSize()
    assert set(np.unique(sitk.GetArrayFromImage(prediction))) <= {0, 1}
