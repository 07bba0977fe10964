"""Fixtures for all tests: nnU-Net's folders, tiny datasets in raw format, a browser, real volumes if at hand."""

import ctypes
import json
import os
import re
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from html import unescape
from multiprocessing.pool import ThreadPool
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", nnUNet_def_n_proc="1")  # before torch and nnU-Net read them

import numpy as np
import pytest
import SimpleITK
from processes import finish_command

BROWSERS = (
    "chromium",
    "chromium-browser",
    "google-chrome",
    "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
)
CANONICAL = (-1, 0, 0, 0, -1, 0, 0, 0, 1)  # our plans read such a volume as it is, without flipping axes


@pytest.fixture(scope="session", autouse=True)
def _files_listed_by_threads():
    """Where nnU-Net forks twelve processes to list the files of a few cases, which takes longer than most tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nnunetv2.utilities.utils.Pool", ThreadPool)
        yield


@pytest.fixture(scope="session")
def shared_data():
    """Folder of the real volumes, from $NNUNET_CMC_DATA or beside the repository."""
    folder = Path(os.environ.get("NNUNET_CMC_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"the real volumes are not at {folder}; set NNUNET_CMC_DATA to their folder")
    return folder


@pytest.fixture(scope="session")
def run_command(tmp_path_factory):
    """``run_command(name, *arguments, environment, fails=False)`` -> output of a command of this environment.

    Its exit code must be 0, or anything else if it is to fail. ``prepare``: functions that are called before, in its
    process.
    """

    def run(name: str, *arguments, environment: dict, fails: bool = False, prepare: tuple = ()) -> str:
        log = tmp_path_factory.mktemp("command") / "output.txt"
        code = finish_command(name, [*map(str, arguments)], environment, log, *prepare)
        output = log.read_text()
        assert (code != 0) == fails, output[-3000:]
        return output

    return run


@pytest.fixture
def nnunet_folders(tmp_path, monkeypatch):
    """A temporary folder with raw/, preprocessed/ and results/, which nnU-Net's variables point to."""
    for name in ("raw", "preprocessed", "results"):
        (tmp_path / name).mkdir()
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    return tmp_path


@pytest.fixture
def ordinary_user():
    """Permissions of files hold for root, too: it lays down CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (Linux)."""
    if os.geteuid() != 0:
        yield
        return
    if sys.platform != "linux":
        pytest.skip("root cannot lay down its capabilities on this system")
    libc = ctypes.CDLL(None)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, this thread
    data = (ctypes.c_uint32 * 6)()  # effective, permitted and inheritable capabilities, twice
    assert libc.capget(header, data) == 0
    before = data[0]
    data[0] &= ~0b110
    assert libc.capset(header, data) == 0
    yield
    data[0] = before
    libc.capset(header, data)


@pytest.fixture
def full_disk():
    """``with full_disk(size):`` no file can grow beyond so many bytes."""

    @contextmanager
    def limited(size=2000):
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)

    return limited


@pytest.fixture(scope="session")
def write_volume():
    """``write_volume(file, array (D, H, W), spacing=..., origin=..., direction=...)``, geometry in order x, y, z."""

    def write(file, array, spacing=(1.0, 1.0, 1.0), origin=(0.0, 0.0, 0.0), direction=CANONICAL):
        image = SimpleITK.GetImageFromArray(np.asarray(array))
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(image, str(file))

    return write


@pytest.fixture
def make_dataset(nnunet_folders, write_volume):
    """``make_dataset({case: ({channel: array}, label or None)})`` -> folder of a raw dataset of CT and MR.

    Cases with a label go to imagesTr with volumes of zeros for absent channels, the others to imagesUn.
    """

    def make(cases, name="Dataset001_Test", spacing=(1.0, 1.0, 1.0), channels=("CT", "MR"), declare=True):
        folder = nnunet_folders / "raw" / name
        for case, (volumes, label) in cases.items():
            for channel in range(len(channels)):
                if channel not in volumes and label is None:
                    continue
                volume = volumes.get(channel, np.zeros_like(next(iter(volumes.values()))))
                part = "imagesUn" if label is None else "imagesTr"
                write_volume(folder / part / f"{case}_{channel:04d}.nii.gz", volume, spacing)
            if label is not None:
                write_volume(folder / "labelsTr" / f"{case}.nii.gz", np.asarray(label, np.uint8), spacing)
        present = {case: sorted(volumes) for case, (volumes, _) in cases.items()}
        dataset_json = {
            "channel_names": {str(i): channel for i, channel in enumerate(channels)},
            "labels": {"background": 0, "liver": 1, "spleen": 2},
            "numTraining": sum(label is not None for _, label in cases.values()),
            "file_ending": ".nii.gz",
        }
        if declare:
            dataset_json["cmc"] = {"version": 1, "present_channels": present}
        (folder / "dataset.json").write_text(json.dumps(dataset_json))
        return folder

    return make


@pytest.fixture(scope="session")
def browser(tmp_path_factory):
    """``browser(page, script, width=..., dark=..., screenshot=None, address=None)`` -> what the script returns.

    The script is the body of an asynchronous function of JavaScript that runs in a copy of the page.
    """
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        give_up = pytest.fail if "GITHUB_ACTIONS" in os.environ else pytest.skip  # GitHub's machines have Chrome
        give_up("no Chromium or Chrome is installed, so the browser tests are skipped")
    alone = ("quic", "background-networking", "component-update", "sync", "gpu")
    command = [program, "--headless", "--no-sandbox", "--no-first-run", *(f"--disable-{what}" for what in alone)]
    command += [f"--user-data-dir={tmp_path_factory.mktemp('profile')}", "--hide-scrollbars"]

    def look(page, script="", *, width=1280, height=900, dark=False, screenshot=None, address=None):
        run = f"document.body.dataset.facts = JSON.stringify(await (async () => {{ {script} }})() ?? null);"
        code = f"<script>addEventListener('load', async () => {{ {run} }});</script></body>"
        copy = page.with_name("measured.html")
        copy.write_text(page.read_text().replace("</body>", code))
        shown = f"--screenshot={screenshot}" if screenshot else "--dump-dom"
        options = ["--virtual-time-budget=5000", f"--window-size={width},{height}", *["--force-dark-mode"] * dark]
        address = address or f"file://{page.parent}"
        done = subprocess.run(
            [*command, *options, shown, f"{address}/{copy.name}"], capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        if screenshot is None:
            return json.loads(unescape(re.search(r'data-facts="([^"]*)"', done.stdout)[1]))

    return look
