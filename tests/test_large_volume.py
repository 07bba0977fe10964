"""Preprocessing and prediction of a volume as large as they come, with stock commands, in bounded memory."""

import importlib.util
import json
import os
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

ROOT = Path(__file__).parents[1]
SHAPE = (400, 512, 512)
LIMIT = 16  # GiB

spec = importlib.util.spec_from_file_location("command_memory", ROOT / "benchmarks" / "command_memory.py")
command_memory = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = command_memory  # where its dataclass looks for annotations
spec.loader.exec_module(command_memory)


@pytest.fixture
def measured(tmp_path, capsys):
    """``measured(name, *arguments)`` -> usage of a command of this environment, whose exit code must be 0."""
    environment = {**os.environ, "nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment |= {f"nnUNet_{part}": str(tmp_path / part) for part in ("raw", "preprocessed", "results")}

    def run(name, *arguments):
        log = tmp_path / f"{name}.txt"
        with log.open("w") as stream:
            code, usage, _ = command_memory.watch(
                [str(Path(sysconfig.get_path("scripts")) / name), *map(str, arguments)],
                env=environment, stdout=stream, stderr=stream,
            )  # fmt: skip
        assert code == 0, log.read_text()[-3000:]
        with capsys.disabled():  # a test that passes says it, too
            print(f"\n{name}: {usage.gib:.2f} GiB, {usage.seconds:.0f} s")
        return usage

    return run


def write_case(folder: Path, case: str, shape: tuple[int, int, int]) -> None:
    """Both channels and the label of a body with four organs, 0.8 mm voxels."""
    label = np.zeros(shape, np.uint8)
    depth, height, width = shape
    for value in range(1, 5):
        left = width * value // 6
        label[depth // 4 : depth // 2, height // 4 : height // 2, left : left + width // 8] = value
    rng = np.random.default_rng(0)
    arrays = {"labelsTr": label}
    for channel in (0, 1):
        volume = rng.integers(60, 90, shape, np.int16)
        volume += label * np.int16(40 - 60 * channel)
        arrays[f"imagesTr_{channel}"] = volume
    for name, array in arrays.items():
        part, _, channel = name.partition("_")
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((0.8, 0.8, 0.8))
        suffix = f"_000{channel}" if channel else ""
        (folder / part).mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(image, str(folder / part / f"{case}{suffix}.nii.gz"), True, 1)


@pytest.mark.slow
def test_a_large_volume_is_preprocessed_and_predicted_in_16_gib(measured, tmp_path):
    raw = tmp_path / "raw" / "Dataset904_Large"
    write_case(raw, "large", SHAPE)
    for number in range(3):
        write_case(raw, f"small{number}", (96, 96, 96))
    dataset_json = {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "a": 1, "b": 2, "c": 3, "d": 4},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(dataset_json))
    fold = {"train": ["large", "small0"], "val": ["small1"], "unlabeled": ["small2"]}
    (raw / "splits_final.json").write_text(json.dumps([fold]))
    planning = measured(
        "nnUNetv2_plan_and_preprocess", "-d", 904, "-pl", "CMCPlannerTiny", "-fpe", "CMCFingerprintExtractor",
        "-c", "3d_fullres", "-overwrite_target_spacing", 1.6, 1.6, 1.6, "-npfp", 1, "-np", 1, "--no_pbar",
    )  # fmt: skip
    assert planning.gib < LIMIT
    measured("nnUNetv2_train", 904, "3d_fullres", 0, "-tr", "CMCTrainer_smoke", "-p", "CMCTinyPlans", "-device", "cpu")
    new = tmp_path / "new"
    new.mkdir()
    for file in sorted((raw / "imagesTr").glob("large_*")):
        (new / file.name).symlink_to(file)
    prediction = measured(
        "nnUNetv2_predict", "-d", 904, "-c", "3d_fullres", "-f", 0, "-tr", "CMCTrainer_smoke", "-p", "CMCTinyPlans",
        "-i", new, "-o", tmp_path / "out", "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta",
        "--disable_progress_bar",
    )  # fmt: skip
    assert prediction.gib < LIMIT
    predicted = sitk.ReadImage(str(tmp_path / "out" / "large.nii.gz"))
    assert predicted.GetSize() == SHAPE[::-1]
