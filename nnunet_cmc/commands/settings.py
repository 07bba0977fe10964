"""The settings of a long command, in its output folder, so that only a command of the same settings goes on there."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nnunet_cmc.utils.files import read_json, write_json


def keep_settings(folder: Path, settings: Mapping[str, Any], what: str) -> None:
    """Write ``settings.json`` if there is none. ValueError: see :func:`require_same_settings`."""
    require_same_settings(folder, settings, what)
    if not (file := folder / "settings.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, dict(settings))


def require_same_settings(folder: Path, settings: Mapping[str, Any], what: str) -> None:
    """Compare with the ``settings.json`` of an earlier command, ``what`` in words, if there is one.

    Raises:
        ValueError: they differ, or the file is damaged.
    """
    file = folder / "settings.json"
    if not file.is_file():
        return
    before = read_json(file, f"remove {folder}, or name another folder with -o")
    known = before if isinstance(before, dict) else {}
    if changed := [name for name in {**settings, **known} if known.get(name) != settings.get(name)]:
        raise ValueError(
            f"{folder} is of another {what}, with other {', '.join(changed)} ({file}): name another folder with -o."
        )
