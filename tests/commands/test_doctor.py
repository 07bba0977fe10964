import importlib.metadata
import json
import os
import re
import signal
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from processes import kill_with_workers

from nnunet_cmc.commands import doctor
from nnunet_cmc.commands.doctor import Check
from nnunet_cmc.nnunet_hook import hook
from nnunet_cmc.nnunet_hook.classes import CLASSES
from nnunet_cmc.nnunet_hook.version import SUPPORTED

TOO_NEW = ".".join(map(str, SUPPORTED[1]))


def run_doctor(*more: str, **environment: str) -> subprocess.CompletedProcess:
    code = f"import sys; from nnunet_cmc.commands.main import main; sys.exit(main(['doctor', *{more}]))"
    env = {key: value for key, value in os.environ.items() if key != hook.SWITCH} | environment
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_an_installation_that_works(tmp_path):
    process = run_doctor(nnUNet_raw=str(tmp_path), nnUNet_results=str(tmp_path / "missing"))
    assert process.returncode == 0, process.stdout + process.stderr
    status = {subject: found for found, subject in re.findall(r"^(\w+) +(\w+) ", process.stdout, re.MULTILINE)}
    for subject in ("python", "torch", "nnunetv2", "SimpleITK", "nnUNet_raw", *CLASSES):
        assert status[subject] == "OK"
    assert status["nnUNet_results"] == "warning"
    assert "BROKEN" not in process.stdout
    assert process.stdout.splitlines()[-1].startswith("nnunet_cmc works here")


def test_without_the_hook_it_fails_and_says_why():
    process = run_doctor("--json", **{hook.SWITCH: "0"})
    assert process.returncode == 1
    (line,) = (line for line in process.stderr.splitlines() if line.startswith("BROKEN"))
    assert line.split()[1:3] == ["start-up", "hook"]
    assert f"unset {hook.SWITCH}" in line
    assert "nnunet_cmc: error: 1 of " in process.stderr
    assert "works here" not in process.stderr
    result = json.loads(process.stdout)
    (broken,) = (check for check in result["checks"] if check["status"] == "BROKEN")
    assert broken["subject"] == "start-up hook"
    assert result["counts"]["BROKEN"] == 1


def test_a_class_that_does_not_load_is_broken(monkeypatch):
    monkeypatch.setitem(CLASSES, "CMCPlanner", "nnunet_cmc.planners.missing")
    assert doctor.problems() == {
        "CMCPlanner": "ModuleNotFoundError: No module named 'nnunet_cmc.planners.missing'",
    }


def test_a_class_found_here_but_not_in_a_spawned_process_is_broken(monkeypatch):
    class Pool:
        def __init__(self, *args, **kwargs): ...
        def __enter__(self):
            return self

        def __exit__(self, *args): ...
        def submit(self, function):
            return SimpleNamespace(result=lambda: {"CMCTrainer": "ImportError: x"})

    monkeypatch.setattr(doctor, "process_pool", Pool)
    monkeypatch.setattr(doctor, "problems", dict)
    found = {check.subject: check for check in doctor.classes()}
    assert found["CMCTrainer"].status == "BROKEN"
    assert "not in a spawned process: ImportError: x" in found["CMCTrainer"].finding
    assert {check.status for name, check in found.items() if name != "CMCTrainer"} == {"OK"}


SLEEPING = """
import os, time
from pathlib import Path
from nnunet_cmc.commands import doctor
def problems():
    Path(__file__).with_name(f"sleeps-{os.getpid()}").touch()
    time.sleep(60)
if __name__ == "__main__":
    doctor.problems = problems
    list(doctor.classes())
"""


def test_the_spawned_process_ends_with_a_doctor_that_is_killed(tmp_path):
    (tmp_path / "sleeping.py").write_text(SLEEPING)
    parent = subprocess.Popen([sys.executable, tmp_path / "sleeping.py"])
    kill_with_workers(parent.pid, 1, lambda: len(list(tmp_path.glob("sleeps-*"))) == 2)
    assert parent.wait() == -signal.SIGKILL


@pytest.mark.parametrize("version", ["2.7.0", f"{TOO_NEW}.0", "99.1", None])
def test_an_unsupported_nnunet_is_broken(monkeypatch, version):
    installed = importlib.metadata.version

    def pretend(name):
        if name != "nnunetv2":
            return installed(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", pretend)
    broken = [check for check in doctor.versions() if check.status != "OK"]
    assert [(check.status, check.subject) for check in broken] == [("BROKEN", "nnunetv2")]
    assert (version or "not installed") in broken[0].finding
    assert f'pip install "nnunetv2<{TOO_NEW},>=2.8"' in broken[0].finding


def test_folders_that_are_unset_missing_or_there(monkeypatch, tmp_path):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "missing"))
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    raw, preprocessed, results = doctor.folders()
    assert (raw.status, preprocessed.status) == ("warning", "warning")
    assert "export nnUNet_raw=" in raw.finding
    assert f"mkdir -p {tmp_path / 'missing'}" in preprocessed.finding
    assert results == Check("OK", "nnUNet_results", str(tmp_path))


def test_the_remedy_for_a_folder_that_no_shell_expanded_works(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    before = doctor.folders()
    found = next(before)
    assert found.status == "warning"
    assert found.finding.startswith("~/raw is used literally, without expanding")
    _, _, remedy = found.finding.partition(": ")
    script = f'{remedy}; python -c "from nnunet_cmc.commands.doctor import folders; print(next(folders()))"'
    after = subprocess.run(script, shell=True, capture_output=True, text=True, check=True).stdout
    assert after.strip() == repr(Check("OK", "nnUNet_raw", str(tmp_path / "raw")))


def test_gpus_are_named(monkeypatch):
    gpu = SimpleNamespace(name="GPU X", total_memory=24 * 2**30)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: gpu)
    assert doctor.gpu() == Check("OK", "GPU", "GPU X (24 GiB), GPU X (24 GiB)")


@pytest.mark.parametrize(("cuda", "advice"), [(None, "another build of torch"), ("12.8", "nvidia-smi")])
def test_no_gpu_is_a_warning(monkeypatch, cuda, advice):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    check = doctor.gpu()
    assert check.status == "warning"
    assert "-device cpu" in check.finding
    assert advice in check.finding


def test_without_metadata_nothing_is_known_to_be_installed(monkeypatch, tmp_path):
    """A clone on the path, and a torchvision that was copied."""

    def version(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    own = next(check for check in doctor.versions() if check.subject == "nnunet_cmc")
    assert own == Check("BROKEN", "nnunet_cmc", f"not installed, only on the path: {doctor.REINSTALL}")
    (tmp_path / "torchvision.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert doctor.torchvision() == Check("OK", "torchvision", "of unknown version")


@pytest.mark.parametrize(
    ("source", "status"), [("", "OK"), ("raise RuntimeError('operator torchvision::nms does not exist')", "warning")]
)
def test_a_torchvision_that_does_not_load_is_a_warning(monkeypatch, tmp_path, source, status):
    (tmp_path / "torchvision.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = doctor.torchvision()
    assert check.status == status
    assert ("(RuntimeError: operator torchvision::nms does not exist)" in check.finding) == (status == "warning")
