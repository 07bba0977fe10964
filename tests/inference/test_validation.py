"""nnU-Net's validation of a fold, in a folder that an earlier training on another split has left."""

import json
import os
from pathlib import Path

import torch

from nnunet_cmc.trainers.registry import trainer_class


def test_only_validation_cases_are_evaluated(in_tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    plans, dataset_json = (
        json.loads((in_tiny.preprocessed / f"{name}.json").read_text()) for name in ("CMCNNUNetSmallPlans", "dataset")
    )
    plans["continue_training"] = False
    trainer = trainer_class("CMCTrainer_smoke")(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))
    trainer.initialize()
    folder = Path(trainer.output_folder, "validation")
    folder.mkdir()
    for name in ("a.nii.gz", "a.npz", "a.pkl", "d.npz", "notes.txt"):
        (folder / name).write_text("of the split before")
    trainer.perform_actual_validation()
    assert sorted(os.listdir(folder)) == ["c.nii.gz", "d.nii.gz", "d.npz", "notes.txt", "summary.json"]
    evaluated = json.loads((folder / "summary.json").read_text())["metric_per_case"]
    assert sorted(Path(case["prediction_file"]).name for case in evaluated) == ["c.nii.gz", "d.nii.gz"]
