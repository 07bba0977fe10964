"""Files that appear whole or not at all, whoever else writes them, and JSON that every reader takes."""

import json
import os
import signal
import stat
from math import inf, isnan, nan
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from processes import clean_process

from nnunet_cmc.utils.files import atomic_write, hidden_folder, read_json, write_json, write_text

WRITE = """
from pathlib import Path
from nnunet_cmc.utils.files import write_json
Path(f"{file}.{number}").touch()
while not all(Path(f"{file}.{n}").exists() for n in range(2)):
    pass
for i in range(150):
    write_json(file, [number] * 2000)
"""
STOP = """
import os, signal
from nnunet_cmc.utils.files import atomic_write
with atomic_write(file) as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGSTOP if stopped else signal.SIGKILL)
"""


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_two_processes_that_write_one_file_at_once(tmp_path):
    file = tmp_path / "dataset.json"
    writers = [clean_process(WRITE, file=str(file), number=number) for number in range(2)]
    while any(writer.is_alive() for writer in writers):
        if file.exists():
            assert len(set(json.loads(file.read_text()))) == 1, "half of one and half of the other"
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert names(tmp_path) == ["dataset.json", "dataset.json.0", "dataset.json.1"]


def test_threads_that_write_one_file_at_once(tmp_path):
    problems = []

    def write():
        try:
            for _ in range(50):
                write_text(tmp_path / "x", "text")
        except OSError as error:
            problems.append(error)

    threads = [Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert names(tmp_path) == ["x"]


def test_what_a_killed_process_leaves_is_hidden_and_goes_with_the_next_write(tmp_path):
    write_text(tmp_path / "x.json", "before")
    process = clean_process(STOP, file=str(tmp_path / "x.json"), stopped=False)
    process.join()
    assert process.exitcode == -signal.SIGKILL
    left, there = names(tmp_path)
    assert left.startswith(".")
    assert (tmp_path / there).read_text() == "before"
    write_text(tmp_path / "another.json", "")
    assert names(tmp_path) == ["another.json", "x.json"]


def test_what_others_are_writing_stays(tmp_path):
    process = clean_process(STOP, file=str(tmp_path / "x"), stopped=True)
    while not (left := list(tmp_path.glob(".*/x"))) or not left[0].read_text():
        pass
    elsewhere = tmp_path / ".unfinished-999999999-abc-another_machine-1"
    elsewhere.mkdir()
    write_text(tmp_path / "x", "mine")
    assert left[0].read_text() == "half"
    assert elsewhere.exists()
    os.kill(process.pid, signal.SIGCONT)
    process.join()
    assert process.exitcode == 0
    assert (tmp_path / "x").read_text() == "half"


def test_after_an_error_the_file_before_is_there_alone(tmp_path):
    write_text(tmp_path / "x", "before")

    def interrupted():
        with atomic_write(tmp_path / "x") as temporary:
            temporary.write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert names(tmp_path) == ["x"]
    assert (tmp_path / "x").read_text() == "before"


def test_a_folder_appears_whole_and_replaces_none(tmp_path):

    def write(content):
        with atomic_write(tmp_path / "folder") as temporary:
            temporary.mkdir()
            (temporary / content).touch()
            assert not (tmp_path / "folder" / content).exists()

    write("first")
    with pytest.raises(OSError, match="not empty") as error:
        write("second")
    assert error.value.filename == str(tmp_path / "folder")
    assert names(tmp_path / "folder") == ["first"]
    assert names(tmp_path) == ["folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o002, 0o664)])
def test_permissions_are_those_of_any_new_file(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_text(tmp_path / "x", "")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x").stat().st_mode) == mode


def test_content_is_on_the_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    synced = []
    fsync = os.fsync

    def spy(descriptor):
        synced.append((os.fstat(descriptor).st_ino, (tmp_path / "x").exists()))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", spy)
    write_text(tmp_path / "x", "text")
    assert synced == [((tmp_path / "x").stat().st_ino, False), (tmp_path.stat().st_ino, True)]


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        write_text(tmp_path / "none" / "x", "")
    assert error.value.filename == str(tmp_path / "none")


def test_a_long_name(tmp_path):
    write_text(tmp_path / ("x" * 255), "")
    assert names(tmp_path) == ["x" * 255]


def no_constant(name):
    raise ValueError(f"{name} is not JSON")


def test_numbers_that_json_has_not_are_null(tmp_path):
    content = {"a": nan, "b": [inf, (-inf, np.float64("nan"))], "c": {"d": 1.5, "e": None, "f": "NaN", "g": True}}
    write_json(tmp_path / "x.json", content)
    found = json.loads((tmp_path / "x.json").read_text(), parse_constant=no_constant)
    assert found == {"a": None, "b": [None, [None, None]], "c": {"d": 1.5, "e": None, "f": "NaN", "g": True}}
    assert isnan(content["a"]), "what is written is not changed"


def test_nothing_else_writes_json():
    """So that no file of ours holds a bare NaN."""
    root = Path(__file__).parents[2]
    folders = ("nnunet_cmc", "dataset_conversion", "planners", "trainers", "benchmarks")
    found = [file for folder in folders for file in (root / folder).rglob("*.py") if "json.dump" in file.read_text()]
    assert sorted(file.name for file in found) == ["files.py", "window_attention.py"]  # the latter: to its own process


def test_the_bare_nan_of_nnunet_is_read(tmp_path):
    (tmp_path / "summary.json").write_text('{"Dice": NaN}')
    assert isnan(read_json(tmp_path / "summary.json", "write it again")["Dice"])


def test_a_hidden_folder_goes_with_its_block(tmp_path):
    with hidden_folder(tmp_path) as folder:
        (folder / "x").touch()
        assert folder.parent == tmp_path
        assert folder.name.startswith(".")
    assert names(tmp_path) == []
