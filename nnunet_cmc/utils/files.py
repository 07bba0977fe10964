"""Atomic writing of files, and JSON that is read with a clear error where it is broken."""

import glob
import json
import os
import platform
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any


@contextmanager
def atomic_write(file: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write a file or new folder to, which becomes ``file`` at the end unless an error is raised.

    Of processes and threads that write one file, the last wins; a reader finds a complete file even after a power cut.
    """
    file = Path(file)
    try:
        with hidden_folder(file.parent) as folder:
            yield folder / file.name
            _sync(folder / file.name)
            os.replace(folder / file.name, file)
            with suppress(OSError):  # not every system can do that with a folder
                _sync(file.parent)
    except OSError as error:
        if error.filename is None or error.filename2 is not None:  # a write to an open file does not say to which
            error.filename, error.filename2 = str(file), None
        raise


@contextmanager
def hidden_folder(parent: str | os.PathLike) -> Iterator[Path]:
    """Make a folder in ``parent`` that is removed at the end or, after a kill, when the next one is made there."""
    suffix = f"-{_machine()}"
    for left in Path(parent).glob(f".unfinished-*{glob.escape(suffix)}"):
        if not _runs(int(left.name.split("-")[1])):
            shutil.rmtree(left, ignore_errors=True)
    prefix = f".unfinished-{os.getpid()}-"
    try:
        folder = TemporaryDirectory(suffix, prefix, parent, ignore_cleanup_errors=True)
    except OSError as error:
        error.filename = str(parent)
        raise
    with folder:
        yield Path(folder.name)


def _machine() -> str:
    """Name the scope in which process numbers are unique: a machine or, on Linux, a container."""
    namespace = Path("/proc/self/ns/pid")
    return f"{platform.node()}-{namespace.stat().st_ino if namespace.exists() else 0}"


def _runs(process: int) -> bool:
    if os.name != "posix":  # os.kill would end it
        return True
    try:
        os.kill(process, 0)
    except OSError as error:
        return not isinstance(error, ProcessLookupError)  # but another user's
    return True


def _sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def all_written(file: str | os.PathLike, *errors: type[Exception]) -> Iterator[None]:
    """Raise an OSError that names ``file`` in place of ``errors``, which a library raises over a full disk."""
    try:
        yield
    except errors as error:
        raise OSError(
            None, "cannot be written, most likely for lack of space: free some, or choose another disk", str(file)
        ) from error


def require_writable(folder: str | os.PathLike) -> None:
    """Make ``folder``, if it is not there. OSError if no file can be written to it, before any long work."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=os.fspath(folder)):
        pass


def save_figure(figure: Any, file: str | os.PathLike, **options: Any) -> None:
    """Save a matplotlib figure atomically; ``options`` are those of ``figure.savefig``."""
    with atomic_write(file) as temporary:
        figure.savefig(temporary, **options)


def save_tensors(file: str | os.PathLike, content: dict[str, Any]) -> None:
    """Save with ``torch.save`` atomically. OSError if ``file`` cannot be written."""
    import torch

    with atomic_write(file) as temporary, all_written(file, RuntimeError):
        torch.save(content, temporary)


def visible(folder: str | os.PathLike) -> list[Path]:
    """List a folder, sorted, without names that begin with a dot, as macOS' ``._*``; empty if it is not there."""
    path = Path(folder)
    return sorted(entry for entry in path.iterdir() if entry.name[0] != ".") if path.is_dir() else []


def visible_below(folder: str | os.PathLike) -> list[Path]:
    """List the files of a folder and of all folders in it, sorted, without names that begin with a dot."""
    return [file for entry in visible(folder) for file in (visible_below(entry) if entry.is_dir() else [entry])]


def write_json(file: str | os.PathLike, content: Any, sort_keys: bool = False) -> None:
    """Write JSON atomically; see :func:`to_json`."""
    write_text(file, to_json(content, indent=4, sort_keys=sort_keys) + "\n")


def to_json(content: Any, **options: Any) -> str:
    """Encode as ``json.dumps`` does, with null for NaN and infinity, which JSON cannot express but nnU-Net writes."""
    return json.dumps(_finite(content), allow_nan=False, **options)


def _finite(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, list | tuple):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not isfinite(content) else content


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8 atomically."""
    with atomic_write(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(file: str | os.PathLike, remedy: str) -> Any:
    """Read a JSON file, with or without a byte order mark. ValueError, ending in ``remedy``: missing or broken."""
    try:
        return json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(f"There is no {file}: {remedy}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): {remedy}.") from error


def is_json(file: str | os.PathLike) -> bool:
    """Tell whether ``file`` exists and is valid JSON."""
    try:
        read_json(file, "")
    except ValueError:
        return False
    return True


def is_plain_name(name: Any) -> bool:
    """Tell whether ``name`` is a file name without a path."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0", "\n"} & set(name)


def require_plain_names(cases: Iterable[Any], where: str) -> None:
    """Raise a ValueError, beginning with ``where``, if one of the ``cases`` is not a plain file name."""
    for case in cases:
        if not is_plain_name(case):
            raise ValueError(f"{where} has the case {case!r}, which is not a file name: rename it.")
