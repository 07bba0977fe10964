"""A preprocessed dataset of cubes, small enough to train in-process in a second."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2
from plans import NETWORK, make_plans

from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.recipe import Length
from nnunet_cmc.trainers.recipes import PAPER

DATASET = "Dataset901_Cubes"
SHAPE = (20, 24, 22)
REGISTERED = {f"case{i}": [0, 1] for i in range(6)}
UNPAIRED = {**{f"ct{i}": [0] for i in range(4)}, **{f"mr{i}": [1] for i in range(4)}}


class TwoByTwo(CMCTrainer):
    """The paper's recipe for two epochs of two training and one validation iterations."""

    seed = 0
    recipe = replace(PAPER, length=Length(2, 2, 1))


def save_case(folder: Path, case: str, channels: list[int], contrast: tuple[float, ...] = (1.0, -1.0)) -> None:
    rng = np.random.default_rng(sum(case.encode()))
    corner = rng.integers(2, 8, 3)
    seg = np.zeros((1, *SHAPE), dtype=np.int16)
    seg[0, corner[0] : corner[0] + 8, corner[1] : corner[1] + 8, corner[2] : corner[2] + 8] = 1
    data = np.zeros((len(contrast), *SHAPE), dtype=np.float32)
    for channel in channels:
        data[channel] = seg[0] * contrast[channel] + rng.normal(0, 0.3, SHAPE)
    properties = {
        "present_channels": channels,
        "body_box": [[0.0, float(side)] for side in SHAPE],
        "class_locations": {1: np.argwhere(seg == 1)},
    }
    sizes = {"chunks": (1, 16, 16, 16), "blocks": (1, 8, 8, 8)}
    nnUNetDatasetBlosc2.save_case(data, seg, properties, str(folder / case), **sizes)


class Quiet(TwoByTwo):
    """The same without pictures, which take longer than the training."""

    def initialize(self):
        super().initialize()
        self.logger.local_logger.plot_progress_png = lambda folder: None


class Cubes:
    """The dataset on disk; tests change its parts and build trainers for it."""

    with_pictures = TwoByTwo

    def __init__(self, root: Path, present: dict[str, list[int]], contrast: tuple[float, ...] = (1.0, -1.0)):
        self.preprocessed, self.results = root / "preprocessed", root / "results"
        self.unpaired = all(len(channels) == 1 for channels in present.values())
        self.folder = self.preprocessed / DATASET
        self.images = self.folder / "CMCTinyPlans_3d_fullres"
        self.images.mkdir(parents=True)
        for case, channels in present.items():
            save_case(self.images, case, channels, contrast)
        self.dataset_json = {
            "channel_names": {str(channel): ("CT", "MR", "T2")[channel] for channel in range(len(contrast))},
            "labels": {"background": 0, "cube": 1},
            "numTraining": len(present),
            "file_ending": ".nii.gz",
            "cmc": {"version": 1, "present_channels": dict(present), "subjects": {}},
        }
        encoder = {"features_per_stage": [4, 8, 8], "blocks_per_stage": [1, 1, 1]}
        network = {**NETWORK, "encoder_kwargs": encoder}
        channels = range(len(contrast))
        plans = make_plans(network, "CMCTinyPlans", normalization_schemes=["ZScoreNormalization" for _ in channels])
        intensities = {str(channel): {} for channel in channels}
        self.plans = {
            **plans, "dataset_name": DATASET, "foreground_intensity_properties_per_channel": intensities,
        }  # fmt: skip
        (self.folder / "dataset_fingerprint.json").write_text("{}")
        self.split(*self._default_split(present))

    @staticmethod
    def _default_split(present) -> tuple[list[str], list[str], list[str]]:
        cases = sorted(present, key=lambda case: (case[-1], case))
        return cases[:2], cases[-2:], cases[2:-2]

    def split(self, train, val, unlabeled) -> None:
        fold = {"train": list(train), "val": list(val), "unlabeled": list(unlabeled)}
        (self.folder / "splits_final.json").write_text(json.dumps([fold]))

    def add_unlabeled(self, case: str, channels: list[int]) -> None:
        folder = Path(f"{self.images}_unlabeled")
        folder.mkdir(exist_ok=True)
        save_case(folder, case, channels)
        (folder / f"{case}_seg.b2nd").unlink()

    def hidden(self) -> list[str]:
        return json.loads((self.folder / "splits_final.json").read_text())[0]["unlabeled"]

    def trainer(self, cls=Quiet, fold=0, device="cpu", **changes):
        plans = json.loads(json.dumps({**self.plans, **changes, "continue_training": False}))
        return cls(plans, "3d_fullres", fold, self.dataset_json, torch.device(device))


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "results"))
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    return tmp_path


@pytest.fixture
def registered(paths) -> Cubes:
    return Cubes(paths, REGISTERED)


@pytest.fixture
def three(paths) -> Cubes:
    """Registered cases of three modalities."""
    return Cubes(paths, {case: [0, 1, 2] for case in REGISTERED}, (1.0, -1.0, 1.0))


@pytest.fixture
def partly_registered(paths) -> Cubes:
    """Scans of three modalities: CT and MR are on one grid, T2 is of others."""
    present = {name: [0, 1] for name in REGISTERED} | {f"t2{i}": [2] for i in range(6)}
    return Cubes(paths, present, (1.0, -1.0, 1.0))


@pytest.fixture
def unpaired(paths) -> Cubes:
    return Cubes(paths, UNPAIRED)


@pytest.fixture
def mixed(paths) -> Cubes:
    """Scans of one modality, and a case of both, which is labelled."""
    return Cubes(paths, {**UNPAIRED, "case0": [0, 1]})


@pytest.fixture(params=["registered", "unpaired"])
def cubes(request, paths) -> Cubes:
    return Cubes(paths, {"registered": REGISTERED, "unpaired": UNPAIRED}[request.param])


@pytest.fixture
def unpaired_with_noise(paths) -> Cubes:
    """Scans of one modality, of which CT shows nothing but noise."""
    return Cubes(paths, UNPAIRED, (0.0, 1.0))


@pytest.fixture(params=[0, 1])
def with_noise(request, paths) -> Cubes:
    """Registered cases of which one modality shows nothing but noise: ``noise`` is its number."""
    cubes = Cubes(paths, REGISTERED, tuple(0.0 if m == request.param else 1.0 for m in (0, 1)))
    cubes.noise = request.param
    return cubes
