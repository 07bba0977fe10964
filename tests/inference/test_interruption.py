"""Commands that are killed at any moment, and the same commands again: all is there, nothing twice, nothing half."""

import shutil
import signal
import subprocess
import sysconfig
import time
from pathlib import Path

import blosc2
import numpy as np
import pytest
from batchgenerators.utilities.file_and_folder_operations import load_pickle
from processes import FORKSERVER, clean_process, kill_with_workers

from nnunet_cmc.data.loading.cases import UnlabeledDataset
from nnunet_cmc.inference.predictor import Predictor

CHANGES = {"open", "os.rename", "os.mkdir", "os.remove", "os.rmdir", "os.link", "shutil.rmtree", "shutil.copyfile"}
PLANS = "CMCNNUNetSmallPlans"
CHILD = """
import os, signal, sys
import pytest
from processes import use_threads

def count(event, arguments):
    if event in changes and str(arguments[0]).startswith(root):
        touches.value += 1
        if touches.value == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)

nowhere = os.open(os.devnull, os.O_WRONLY)
os.dup2(nowhere, 1)
os.dup2(nowhere, 2)
use_threads(pytest.MonkeyPatch())
sys.addaudithook(count)
exec(command)
"""
PREPROCESS = f"""
from nnunetv2.experiment_planning.plan_and_preprocess_api import preprocess_dataset
preprocess_dataset(903, "{PLANS}", ("3d_fullres",), (1,))
"""
PLAN = """
from nnunet_cmc.planners.fingerprint import DatasetFingerprintExtractor
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNetSmall
extractor = DatasetFingerprintExtractor(903, 1)
extractor.num_foreground_voxels_for_intensitystats = 1000
extractor.run()
CMCPlannerNNUNetSmall(903, overwrite_target_spacing=[1.0] * 3, channels=4, patch_size=(16, 16, 16)).plan_experiment()
"""


def ours(arguments: str) -> str:
    """Source that runs a command of ours."""
    return f"from nnunet_cmc.commands.main import main; assert main({arguments.split()!r}) == 0"


def in_a_child(command: str, root: Path, kill_at: int | None = None) -> int:
    """Execute source in a process; kill -9 it just before its ``kill_at``-th touch of a file below ``root``.

    Returns the number of touches of a run to its end, or -1 after a kill.
    """
    touches = FORKSERVER.Value("i", 0)
    child = clean_process(CHILD, command=command, root=str(root), kill_at=kill_at, changes=CHANGES, touches=touches)
    child.join(100)
    assert child.exitcode in (0, -signal.SIGKILL), "the command failed by itself, or hung"
    return -1 if child.exitcode else touches.value


def survives(command: str, root: Path, kills: int, is_done=lambda: False) -> None:
    """Kill ``command`` at random touches, each time in what the kill before has left; then run it to its end."""
    copy = root.with_name(root.name + "_copy")
    shutil.copytree(root, copy)
    touches = in_a_child(command, root)
    assert touches > 3
    shutil.rmtree(root)
    copy.rename(root)
    killed = 0
    for kill_at in np.random.default_rng(0).permutation(np.arange(1, touches + 1))[:kills]:
        killed += in_a_child(command, root, int(kill_at)) < 0
        if is_done():
            return
    assert killed > kills / 3, "what is done is not done again, so the later a kill, the fewer writes are left for it"
    assert in_a_child(command, root) > 0


def content(folder: Path) -> dict[str, object]:
    """Everything below a folder by its path; arrays and properties of preprocessed cases, bytes of others."""
    found: dict[str, object] = {}
    for file in sorted(folder.rglob("*")):
        name = str(file.relative_to(folder))
        if file.suffix == ".b2nd":
            found[name] = blosc2.open(str(file))[:].tobytes()
        elif file.suffix == ".pkl":
            found[name] = repr(load_pickle(str(file)))
        elif file.is_file():
            found[name] = file.read_bytes()
        else:
            found[name] = None
    return found


@pytest.fixture
def work(in_tiny, tmp_path, monkeypatch):
    """nnU-Net's folders, empty, in a folder of their own; ``work.raw`` is linked to the raw dataset."""
    root = tmp_path / "work"
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(parents=True)
        monkeypatch.setenv(f"nnUNet_{name}", str(root / name))
    return root


@pytest.fixture
def convert(in_tiny, work) -> str:
    """Arguments of a conversion of scans that lie in a folder of the work's."""
    (work / "scans").mkdir()
    for channel, name in enumerate(("CT", "MR")):
        for file in sorted(in_tiny.raw.glob(f"imagesTr/*_{channel:04d}.nii.gz")):
            target = work / "scans" / name / file.name.replace(f"_{channel:04d}", "")
            target.parent.mkdir(exist_ok=True)
            shutil.copy(file, target)
    folders = f"--images CT={work}/scans/CT MR={work}/scans/MR --labels {in_tiny.raw}/labelsTr"
    return f"convert folders -d 7 --name Killed {folders} --classes block=1"


def test_convert(convert, work):
    exec(ours(convert))
    dataset = work / "raw" / "Dataset007_Killed"
    whole = content(dataset)
    shutil.rmtree(dataset)
    survives(ours(convert), work, 16, dataset.exists)
    assert content(dataset) == whole
    assert [folder.name for folder in (work / "raw").iterdir()] == [dataset.name]


def test_split(in_tiny, work):
    shutil.copytree(in_tiny.raw, work / "raw" / in_tiny.raw.name)
    file = work / "raw" / in_tiny.raw.name / "splits_final.json"
    before = file.read_text()
    split = ours("split -d 903 --folds 2")
    exec(split)
    whole = content(work)
    for _ in range(2):
        file.write_text(before)
        survives(split, work, 5)
        assert content(work) == whole


def test_plan_and_preprocess(in_tiny, work):
    shutil.copytree(in_tiny.raw, work / "raw" / in_tiny.raw.name)
    preprocessed = work / "preprocessed" / in_tiny.raw.name

    exec(PLAN + PREPROCESS, {})
    whole = content(preprocessed)
    assert {"gt_segmentations/a.nii.gz", f"{PLANS}_3d_fullres/d_seg.b2nd"} <= set(whole)
    assert f"{PLANS}_3d_fullres_unlabeled/u.pkl" in whole
    shutil.rmtree(preprocessed)
    survives(PLAN + PREPROCESS, work, 10)
    assert content(preprocessed) == whole


def test_preprocessing_that_was_cut_short_never_looks_complete(in_tiny, work):
    shutil.copytree(in_tiny.raw, work / "raw" / in_tiny.raw.name)
    preprocessed = work / "preprocessed" / in_tiny.raw.name
    shutil.copytree(in_tiny.preprocessed, preprocessed)
    labeled, unlabeled = preprocessed / f"{PLANS}_3d_fullres", preprocessed / f"{PLANS}_3d_fullres_unlabeled"

    touches = in_a_child(PREPROCESS, work)
    refused = 0
    for kill_at in range(1, touches + 1, 7):
        in_a_child(PREPROCESS, work, kill_at)
        if Path(f"{unlabeled}.unfinished").exists():
            refused += 1
            with pytest.raises(ValueError, match="was interrupted: run nnUNetv2_preprocess again"):
                UnlabeledDataset.get_identifiers(str(unlabeled))
            continue
        found = [UnlabeledDataset.get_identifiers(str(folder)) for folder in (unlabeled, labeled)]
        assert [sorted(cases) for cases in found] == [["u"], list("abcd")]
    assert refused > 2


def test_predict_folder(in_tiny, tmp_path):
    cases, output = tmp_path / "cases", tmp_path / "out"
    cases.mkdir()
    output.mkdir()
    for name in ("mr_0001", "ct_0000", "small_0000"):
        shutil.copy(in_tiny.new / f"{name}.nii.gz", cases)
    assert Predictor(in_tiny.model, device="cpu").predict_folder(cases, tmp_path / "whole") == {}
    predictor = f"Predictor({str(in_tiny.model)!r}, device='cpu')"
    folders = f"{str(cases)!r}, {str(output)!r}"
    predict = (
        f"from nnunet_cmc.inference.predictor import Predictor; assert not {predictor}.predict_folder({folders}, False)"
    )
    survives(predict, output, 12)
    assert content(output) == content(tmp_path / "whole")


def test_evaluate(in_tiny, tmp_path):
    predictions = tmp_path / "predictions"
    shutil.copytree(in_tiny.raw / "labelsTr", predictions)
    shutil.copy(in_tiny.raw / "dataset.json", predictions)
    folders = f"-r {in_tiny.raw}/labelsTr -p {predictions} -np 1"
    whole = tmp_path / "whole"
    exec(ours(f"evaluate {folders} -o {whole}"))
    out = tmp_path / "out"
    out.mkdir()
    survives(ours(f"evaluate {folders} -o {out}"), out, 8)
    assert content(out) == content(whole)


PREPROCESS_903 = (
    "nnUNetv2_plan_and_preprocess -d 903 -pl CMCPlannerNNUNetSmall -fpe CMCFingerprintExtractor -npfp 2 -np 2"
)
PREDICT_903 = "nnUNetv2_predict -d 903 -c 3d_fullres -f 0 -tr CMCTrainer_smoke -p CMCNNUNetSmallPlans -device cpu"
WITH_WORKERS = {  # and the part of the work's folder in which the result lies
    "convert": ("nnunet_cmc {convert} -np 2", "raw"),
    "preprocess": (PREPROCESS_903 + " -c 3d_fullres -overwrite_target_spacing 1 1 1", "preprocessed"),
    "predict": (PREDICT_903 + " -npp 2 -nps 2 -i {tiny.new} -o {work}/out --continue_prediction", "out"),
    "evaluate": ("nnunet_cmc evaluate -r {tiny.raw}/labelsTr -p {work}/predictions -o {work}/out -np 2", "out"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_WORKERS)
def test_a_command_with_workers(in_tiny, work, convert, name, tmp_path, monkeypatch):
    """The command itself, killed four times at random moments: none of its processes outlives it.

    But for four of a prediction: a multiprocessing.Manager of nnU-Net's, which does not notice, and holds the pipes
    over which its two writers and Python's resource tracker would.
    """
    command, part = WITH_WORKERS[name]
    command = [*command.format(tiny=in_tiny, work=work, convert=convert).split()]
    command[0] = str(Path(sysconfig.get_path("scripts")) / command[0])
    shutil.copytree(in_tiny.raw, work / "raw" / in_tiny.raw.name)
    shutil.copytree(in_tiny.raw / "labelsTr", work / "predictions")
    shutil.copy(in_tiny.raw / "dataset.json", work / "predictions")
    if name == "predict":
        monkeypatch.setenv("nnUNet_results", str(in_tiny.root / "results"))
    shutil.copytree(work, tmp_path / "before")
    started = time.monotonic()
    subprocess.run(command, check=True, capture_output=True)
    seconds = time.monotonic() - started
    whole = content(work / part)
    shutil.rmtree(work)
    (tmp_path / "before").rename(work)
    for fraction in np.random.default_rng(0).uniform(0.3, 1, 4):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(fraction * seconds)
        kill_with_workers(process.pid, 0, may_stay=4 if name == "predict" else 0)
        process.wait()
    subprocess.run(command, check=True, capture_output=True)
    assert content(work / part) == whole
