"""The scripts of examples/ run, and the one model that they train is good enough to be asked."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from source_files import ROOT

from nnunet_cmc import Predictor
from nnunet_cmc.dataset_conversion.phantom import CLASSES, phantom

EXAMPLES = ROOT / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> tuple[Path, str]:
    """Folder of the model that train_and_predict.py trains, and what it printed, in a Python of its own."""
    folder = tmp_path_factory.mktemp("example") / "new"
    command = [sys.executable, EXAMPLES / "train_and_predict.py", folder, "CMCTrainer_smoke"]
    environment = {**os.environ, "nnUNet_n_proc_DA": "0", "OMP_WAIT_POLICY": "PASSIVE", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return Path(done.stdout.splitlines()[-1].removeprefix("Model: ")), done.stdout


def test_train_and_predict(trained):
    model, output = trained
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()
    assert len(list((model.parents[2] / "predictions").glob("*.nii.gz"))) == 1
    dice = {name: float(value) for name, value in (line[8:].split(": ") for line in output.splitlines()[-5:-1])}
    assert dice.keys() == CLASSES.keys()
    assert all(0 <= value <= 1 for value in dice.values())


def test_predict_in_a_service(trained, capsys):
    example = load("predict_in_a_service")
    answers = example.main(str(trained[0]))
    assert "Refused: There is no modality PET" in capsys.readouterr().out
    assert {(labels.shape, labels.dtype) for labels in answers.values()} == {((56, 56, 72), np.dtype(np.uint8))}
    _, scans = phantom(np.random.default_rng(7), spacing=example.SPACING)
    alone = Predictor(trained[0]).predict({"MR": scans["MR"][:, ::-1, ::-1]}, example.SPACING)
    np.testing.assert_array_equal(answers["MR alone"], alone)
    assert (answers["CT alone"] != alone).any()


def test_evaluation_in_python(trained, tmp_path, monkeypatch):
    """The lines of docs/evaluation.md, of the example's prediction."""
    work = trained[0].parents[2]
    raw = work / "raw" / trained[0].parent.name
    for name, target in {"labelsTs": raw / "labelsTs", "out": work / "predictions", "dataset.json": None}.items():
        (tmp_path / name).symlink_to(target or raw / name)
    text = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert set(names["evaluation"].table["class"]) == CLASSES.keys()


def test_readme_in_python(trained, tmp_path, monkeypatch):
    """README's lines as they are, with the model that the example trained in place of the walk's."""
    model, _ = trained
    scans, raw = tmp_path / "scans", model.parents[2] / "raw" / model.parent.name
    scans.mkdir()
    for channel, name in enumerate(("ct", "mr")):
        (file,) = (raw / "imagesTs").glob(f"*_{channel:04d}.nii.gz")
        for copy in (f"patient_{name}.nii.gz", f"patient_{channel:04d}.nii.gz", f"scans/one_{channel:04d}.nii.gz"):
            shutil.copyfile(file, tmp_path / copy)
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    (named,) = re.findall(r'Predictor\("(.*?)"', code)
    (tmp_path / named).parent.mkdir(parents=True)
    (tmp_path / named).symlink_to(model)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code, names)
    assert names["image"].GetSize() == names["ct"].GetSize()
    assert names["image"].GetSpacing() == names["ct"].GetSpacing()
    assert names["labels"].any()
    for file in ("patient.nii.gz", "predicted/one.nii.gz"):
        both = sitk.GetArrayFromImage(sitk.ReadImage(file))
        assert both.size == names["labels"].size
        assert (both != names["labels"]).any(), "of both modalities"


def test_losses_in_your_own_loop():
    history = load("losses_in_your_own_loop").main(iterations=12)
    assert all(np.isfinite(list(terms.values())).all() for terms in history)
    for name in ("supervised", "CSC", "CAC"):
        assert history[-1][name] < history[0][name]


def test_an_example_can_be_read_from_top_to_bottom_and_is_in_the_index():
    index = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    files = sorted(EXAMPLES.glob("*.py"))
    assert len(files) == 3
    for file in files:
        assert len(file.read_text(encoding="utf-8").splitlines()) <= 60
        assert f"(../examples/{file.name})" in index
