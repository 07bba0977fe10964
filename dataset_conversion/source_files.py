"""Files of a source that make no case, and the drawing of those that do, for all converters."""

import filecmp
import os
from collections.abc import Hashable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

Key = TypeVar("Key", bound=Hashable)


@dataclass
class UnusedFiles:
    """Files that no case uses.

    Attributes:
        left_out: why each file is left out; these are printed.
        errors: sentences about files that fit into no case, for which nothing is converted.
    """

    left_out: dict[Path, str] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    def enter(self, files: dict[Key, Path], key: Key, file: Path, who: str) -> None:
        """Enter ``file`` into ``files`` unless its ``key``, ``who`` in words, is taken, which is an error."""
        if files.setdefault(key, file) != file:
            self.errors.append(f"{files[key]} and {file} are both {who}: remove one of them.")


def equal_files(files: Iterable[Path]) -> list[tuple[Path, Path]]:
    """Pair each file with an earlier one of the same bytes; most are told apart by their size and middle alone."""
    alike: dict[tuple[int, bytes], Path] = {}
    pairs = []
    for file in filter(Path.is_file, files):
        with suppress(OSError), open(file, "rb") as content:
            size = content.seek(0, os.SEEK_END)
            content.seek(size // 2)
            first = alike.setdefault((size, content.read(1 << 12)), file)
            if first != file and filecmp.cmp(first, file, shallow=False):
                pairs.append((first, file))
    return pairs


def draw_names(names: Iterable[str], count: int, rng: np.random.Generator, what: str) -> list[str]:
    """Draw ``count`` of the names, whatever their order, and sort them. ValueError: there are fewer of ``what``."""
    candidates = sorted(names)
    if len(candidates) < count:
        raise ValueError(f"{count} {what} are to be drawn, but there are {len(candidates)}: convert without --paper.")
    return sorted(candidates[i] for i in rng.permutation(len(candidates))[:count])
