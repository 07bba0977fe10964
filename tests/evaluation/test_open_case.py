"""The script beside a page: what it starts, and whom its server answers."""

import json
import os
import runpy
import shutil
import subprocess
import sys
import time
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from nnunet_cmc.evaluation import open_case
from nnunet_cmc.evaluation.case_gallery import save_opener
from nnunet_cmc.evaluation.case_pictures import CaseFiles

VIEWER = f"""#!{sys.executable}
import json, os, sys
with open({{0!r}} + ".part", "w") as file:
    json.dump(sys.argv[1:], file)
os.rename({{0!r}} + ".part", {{0!r}})
"""


@pytest.fixture
def page(tmp_path, write_labels, blocks):
    """A page with one case beside its script."""
    for name in ("ct", "mr", "label", "found"):
        write_labels(tmp_path / "data" / f"{name}.nii.gz", blocks())
    data = {name: tmp_path / "data" / f"{name}.nii.gz" for name in ("ct", "mr", "label", "found")}
    (tmp_path / "out").mkdir()
    page = tmp_path / "out" / "report.html"
    page.write_text("the page")
    save_opener(page, [CaseFiles("a b", {"CT": data["ct"], "MR": data["mr"]}, data["label"], {"ours": data["found"]})])
    return page


@pytest.fixture
def viewers(tmp_path, monkeypatch):
    """``viewers(name)`` puts a program of that name on the path -> function that waits for its arguments."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def install(name):
        program, said = tmp_path / "bin" / name, tmp_path / f"{name}.json"
        program.write_text(VIEWER.format(str(said)))
        program.chmod(0o755)

        def arguments():
            for _ in range(1000):
                if said.exists():
                    return json.loads(said.read_text())
                time.sleep(0.01)
            return pytest.fail(f"{name} was not started")

        return arguments

    return install


def run(page, *arguments):
    script = [sys.executable, str(page.with_name("open_case.py")), *arguments]
    return subprocess.run(script, capture_output=True, text=True, timeout=60)


def paths(page, *names):
    return [str(page.parents[1] / "data" / f"{name}.nii.gz") for name in names]


def test_itk_snap_gets_scans_and_labels(page, viewers):
    arguments = viewers("itksnap")
    assert run(page, "a b").returncode == 0
    assert arguments() == ["-g", *paths(page, "ct"), "-o", *paths(page, "mr"), "-s", *paths(page, "label", "found")]


def test_slicer_runs_the_code(page, viewers):
    viewers("itksnap")
    arguments = viewers("Slicer")
    assert run(page, "a b", "--viewer", "slicer").returncode == 0
    option, code = arguments()
    loaded = []

    def load(file, properties):
        loaded.append((file, properties["name"]))

    slicer = SimpleNamespace(util=SimpleNamespace(loadVolume=load, loadSegmentation=load))
    assert option == "--python-code"
    exec(code, {"slicer": slicer})
    assert loaded == list(
        zip(paths(page, "ct", "mr", "label", "found"), ("CT", "MR", "reference", "ours"), strict=True)
    )


def test_napari_gets_arrays(page, tmp_path, blocks):
    """A module in its place notes what it is given."""
    (tmp_path / "napari.py").write_text(
        "import numpy as np\n"
        "class Viewer:\n"
        "    seen = {}\n"
        "    def add_image(self, voxels, name, scale): self.seen[name] = voxels, scale\n"
        "    add_labels = add_image\n"
        f"def run(): np.savez({str(tmp_path / 'seen.npz')!r}, **{{k: v for k, (v, _) in Viewer.seen.items()}}, "
        "scale=Viewer.seen['CT'][1])\n"
    )
    content = json.loads(page.with_name("open_case.json").read_text())["cases"]["a b"]
    command = open_case.command_of("napari", sys.executable, **content)
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=60)
    seen = np.load(tmp_path / "seen.npz")
    assert set(seen) == {"CT", "MR", "reference", "ours", "scale"}
    np.testing.assert_array_equal(seen["ours"], blocks())
    np.testing.assert_allclose(seen["scale"], (3.0, 1.5, 1.0))


def test_what_cannot_be_opened(page, viewers, tmp_path):
    assert run(page, "c").stderr == "There is no case c: name one of a b.\n"
    assert "There is no slicer here: install it" in run(page, "a b", "--viewer", "slicer").stderr
    if not find_spec("napari"):
        assert "There is no itksnap, slicer, napari here" in run(page, "a b").stderr
    other = tmp_path / "bin" / "my-slicer"
    viewers(other.name)
    assert run(page, "a b", "--viewer", str(other)).returncode == 0
    Path(*paths(page, "mr")).unlink()
    assert f"Case a b: there is no {paths(page, 'mr')[0]}: make the page again" in run(page, "a b").stderr


def test_the_server_opens_cases_for_its_own_page_only(page, viewers):
    arguments = viewers("itksnap")
    environment = {**os.environ, "BROWSER": shutil.which("true", path="/bin:/usr/bin") or ""}
    command = [sys.executable, str(page.with_name("open_case.py"))]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as server:
        try:
            address = server.stdout.readline().split()[0]
            host, _, name = address.removeprefix("http://").partition("/")
            assert name == "report.html"

            def ask(method, path, **headers):
                connection = HTTPConnection(host, timeout=30)
                connection.request(method, path, headers=headers)
                answer = connection.getresponse()
                return answer.status, answer.read().decode()

            assert ask("GET", "/report.html") == (200, "the page")
            assert ask("GET", "/report.html", Host="evil.example")[0] == 403
            assert ask("POST", "/open/a%20b", Origin="http://evil.example")[0] == 403
            assert ask("POST", "/report.html")[0] == 403
            assert ask("POST", "/open/c") == (500, "There is no case c: name one of a b.")
            assert ask("GET", "/../data/ct.nii.gz")[0] == 404
            assert ask("POST", "/open/a%20b", Origin=f"http://{host}") == (200, "")
            assert arguments()[:2] == ["-g", *paths(page, "ct")]
        finally:
            server.terminate()


def test_it_needs_only_python(page):
    code = f"import runpy; runpy.run_path({str(page.with_name('open_case.py'))!r})"
    assert subprocess.run([sys.executable, "-I", "-S", "-c", code], timeout=60).returncode == 0
    assert "nnunet_cmc" not in page.with_name("open_case.py").read_text()
    assert runpy.run_path(str(page.with_name("open_case.py")))["HERE"] == page.parent.resolve()


def test_a_page_is_written_again_where_the_package_is_read_only(page, tmp_path, monkeypatch, ordinary_user):
    source = tmp_path / "package" / "open_case.py"
    source.parent.mkdir()
    shutil.copy(open_case.__file__, source)
    source.chmod(0o444)
    monkeypatch.setattr(open_case, "__file__", str(source))
    for _ in range(2):
        save_opener(page, [])
    assert page.with_name("open_case.py").read_text() == source.read_text()
