"""Verify that a model that somebody sent executes no code when nnU-Net, which unpickles its files, loads it."""

import os
import shutil
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import NamedTuple

from nnunet_cmc.data.format.plans_json import check_plans
from nnunet_cmc.inference.resolved_names import check_dataset_names, check_plans_names
from nnunet_cmc.utils.checkpoints import load_checkpoint
from nnunet_cmc.utils.files import read_json
from nnunet_cmc.utils.pickles import IN_POSTPROCESSING, RestrictedUnpickler

LOADED = ("plans.json", "dataset.json", "postprocessing.pkl")
DATA = (".json", ".csv", ".txt", ".md", ".png", ".pdf", ".nii.gz")  # nothing of these is executed
RATIO, ALLOWANCE = 20, 2**26  # how many times a file may grow when it is unpacked (weights hardly do), and bytes beside
ENTRIES = 10_000  # in a zip file
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # of others, zipfile unpacks any amount at once


class Verdict(NamedTuple):
    file: str
    problem: str | None  # None where all is well


def verify(file: Path) -> Iterator[Verdict]:
    """Check a checkpoint, or each file of an exported model (``.zip``) or of the folder of a model."""
    if file.is_dir():
        loaded = sorted(path for path in _files(file) if _is_loaded(path.name))
        if not loaded:
            yield Verdict(str(file), "there is no model in this folder")
        for path in loaded:
            yield Verdict(str(path), _problem(_load, path))
    elif not file.is_file():
        yield Verdict(str(file), "there is no such file")
    elif file.suffix == ".zip":
        yield from _archive(file)
    else:
        yield Verdict(str(file), _problem(_checkpoint, file))


def _files(folder: Path) -> Iterator[Path]:
    """List all files in a folder, also behind links to other folders, each of which is entered once."""
    entered = {folder.resolve()}
    for root, folders, names in os.walk(folder, followlinks=True):
        yield from (Path(root, name) for name in names)
        new = {name: real for name in sorted(folders) if (real := Path(root, name).resolve()) not in entered}
        entered |= set(new.values())
        folders[:] = new


def _archive(file: Path) -> Iterator[Verdict]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # NotImplementedError: a later zip version
        yield Verdict(str(file), f"it cannot be read as a zip file ({error}): export or copy it again")
        return
    with archive, TemporaryDirectory() as folder:
        if problem := _problem(_require_sizes, archive, file.stat().st_size):
            yield Verdict(str(file), problem)
            return
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                yield Verdict(member.filename, "its path leads out of the folder that it is extracted to")
            elif stat.S_ISLNK(member.external_attr >> 16):  # a Unix program puts the file's mode there
                yield Verdict(member.filename, "it is a link to another file: export the model again")
            elif not member.is_dir():
                yield Verdict(member.filename, _problem(_member, archive, member, Path(folder)))


def _require_sizes(archive: zipfile.ZipFile, size: int) -> None:
    """Raise a ValueError if the archive, of ``size`` bytes, states that it unpacks to much more than a model.

    No entry yields more than it states: zipfile stops there and then finds that the checksum is wrong.
    """
    if len(archive.infolist()) > ENTRIES:
        raise ValueError(f"it has {len(archive.infolist())} entries, and a model has a few: do not unpack it")
    unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > RATIO * size + ALLOWANCE:
        raise ValueError(
            f"its {size / 2**20:.1f} MiB would unpack to {unpacked / 2**20:.0f} MiB, and a model does not shrink so "
            "much: do not unpack it"
        )


def _problem(check, *arguments) -> str | None:
    try:
        check(*arguments)
    except Exception as error:  # anything may be in there
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    name = PurePosixPath(member.filename).name
    if member.compress_type not in METHODS:
        raise ValueError("it is compressed by a method that nnU-Net does not use: export the model again")
    if _is_loaded(name):
        with archive.open(member) as source, open(folder / name, "wb") as target:
            shutil.copyfileobj(source, target)
        try:
            _load(folder / name)
        finally:
            (folder / name).unlink()
    elif not name.endswith(DATA):
        raise ValueError("it is of no kind that a model has")


def _is_loaded(name: str) -> bool:
    name = name.lower()  # as some file systems find it
    return name.endswith(".pth") or name in LOADED


def _load(file: Path) -> None:
    name = file.name.lower()
    if name == "plans.json":
        plans = read_json(file, "export or copy it again")
        check_plans(plans)
        check_plans_names(plans)
    elif name == "dataset.json":
        check_dataset_names(read_json(file, "export or copy it again"))
    elif name == "postprocessing.pkl":
        with open(file, "rb") as content:
            RestrictedUnpickler(content, IN_POSTPROCESSING).load()
    else:
        _checkpoint(file)


def _checkpoint(file: Path) -> None:
    if zipfile.is_zipfile(file):  # as torch saves them, but not compressed
        with zipfile.ZipFile(file) as archive:
            _require_sizes(archive, file.stat().st_size)
    load_checkpoint(file)
