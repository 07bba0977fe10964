import json

import numpy as np
import pytest
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from planned_scans import ESTIMATES, FINGERPRINTS

from nnunet_cmc.planners.base import BasePlanner

LABEL = np.zeros((10, 12, 14), np.uint8)
LABEL[2:8, 3:9, 4:10] = 1


@pytest.fixture
def dataset(make_dataset, monkeypatch):
    """(raw folder, preprocessed folder with a fingerprint) of one CT and one MR; Dataset001_Test.

    The fingerprint is of larger scans than the files, which the planners are told to accept.
    """
    monkeypatch.setattr(BasePlanner, "_require_own_fingerprint", lambda self: None)
    rng = np.random.default_rng(0)
    ct, mr = (rng.normal(mean, 10, LABEL.shape).astype(np.float32) for mean in (50, 300))
    raw = make_dataset({"ct": ({0: ct}, LABEL), "mr": ({1: mr}, LABEL)})
    preprocessed = raw.parents[1] / "preprocessed" / raw.name
    preprocessed.mkdir()
    fingerprint = {
        "spacings": [[5.0, 0.75, 0.75], [4.0, 1.25, 1.25]],
        "shapes_after_crop": [[60, 256, 256], [40, 160, 160]],
        "foreground_intensity_properties_per_channel": {},
        "median_relative_size_after_cropping": 0.5,
    }
    (preprocessed / "dataset_fingerprint.json").write_text(json.dumps(fingerprint))
    return raw, preprocessed


@pytest.fixture
def scans(dataset):
    """``scans(name, cases)`` gives the dataset the fingerprint of so many such scans."""

    def fingerprint(name, cases=2):
        raw, preprocessed = dataset
        spacings, shapes = FINGERPRINTS[name]
        for file, changes in (
            (preprocessed / "dataset_fingerprint.json", {"spacings": spacings * 3, "shapes_after_crop": shapes * 3}),
            (raw / "dataset.json", {"numTraining": cases}),
        ):
            file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
        return preprocessed

    return fingerprint


@pytest.fixture(autouse=True)
def estimated_once(monkeypatch):
    """Of the same network and patch, nnU-Net's estimate is the same in all tests."""
    estimate = ExperimentPlanner.static_estimate_VRAM_usage

    def remembered(*arguments):
        if (key := repr(arguments)) not in ESTIMATES:
            ESTIMATES[key] = estimate(*arguments)
        return ESTIMATES[key]

    monkeypatch.setattr(ExperimentPlanner, "static_estimate_VRAM_usage", staticmethod(remembered))
