"""Files that appear whole or not at all, and JSON that is read with a sentence where it is broken."""

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any


@contextmanager
def written_whole(file: str | os.PathLike) -> Iterator[Path]:
    """A path of the same name to write to; what is there at the end becomes ``file``, and after an error nothing does.

    It lies in a hidden folder beside ``file``, so that nothing which a killed process leaves looks like a result.
    """
    file, folder = Path(file), unfinished_folder(file)
    folder.mkdir(exist_ok=True)
    try:
        yield folder / file.name
        os.replace(folder / file.name, file)
    except OSError as error:
        if error.filename is None:  # a write to an open file does not say to which
            error.filename = str(file)
        raise
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def all_written(file: str | os.PathLike, *errors: type[Exception]) -> Iterator[None]:
    """OSError that names ``file`` in place of ``errors``, with which a library answers a full disk."""
    try:
        yield
    except errors as error:
        raise OSError(
            None, "cannot be written, most likely for lack of space: free some, or choose another disk", str(file)
        ) from error


def require_writable(folder: str | os.PathLike) -> None:
    """Make ``folder``, if it is not there. OSError if no file can be written to it: before the long part."""
    Path(folder).mkdir(parents=True, exist_ok=True)
    with TemporaryFile(dir=os.fspath(folder)):
        pass


def save_tensors(file: str | os.PathLike, content: dict[str, Any]) -> None:
    """``torch.save``; ``file`` appears whole or not at all. OSError if it cannot be written."""
    import torch

    with written_whole(file) as temporary, all_written(file, RuntimeError):
        torch.save(content, temporary)


def unfinished_folder(file: str | os.PathLike) -> Path:
    """Where :func:`written_whole` keeps ``file`` until it is whole."""
    return Path(file).with_name(f".{Path(file).name}.unfinished")


def write_json(file: str | os.PathLike, content: Any) -> None:
    """Write JSON; a reader sees the old file or the new one, never half of one."""
    write_text(file, json.dumps(content, indent=4) + "\n")


def write_text(file: str | os.PathLike, text: str) -> None:
    """Write a text in UTF-8, whole or not at all."""
    with written_whole(file) as temporary:
        temporary.write_text(text, encoding="utf-8")


def read_json(file: str | os.PathLike, remedy: str) -> Any:
    """Content of a JSON file, which may begin with a byte order mark, as some editors write it.

    Raises:
        ValueError: it is missing or broken; ``remedy`` ends the message.
    """
    try:
        return json.loads(Path(file).read_text(encoding="utf-8-sig"))
    except FileNotFoundError as error:
        raise ValueError(f"There is no {file}: {remedy}.") from error
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is not JSON ({error}): {remedy}.") from error


def is_json(file: str | os.PathLike) -> bool:
    """Whether a file is there and whole."""
    try:
        read_json(file, "")
    except ValueError:
        return False
    return True


def is_plain_name(name: Any) -> bool:
    """Whether ``name`` names something in a folder and cannot lead out of it."""
    return isinstance(name, str) and name not in ("", ".", "..") and not {"/", "\\", "\0", "\n"} & set(name)


def require_plain_names(cases: Iterable[Any], where: str) -> None:
    """ValueError, beginning with ``where``, if the files of one of the ``cases`` would lie in another folder."""
    for case in cases:
        if not is_plain_name(case):
            raise ValueError(f"{where} has the case {case!r}, which is no name of a file: rename it.")
