"""Files of a source that make no case, or that are used twice, for all converters."""

import filecmp
import os
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from nnunet_cmc.dataset_conversion.case import Case

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

    def enter(self, files: dict[Key, Path], key: Key, file: Path, who: str, remedy: str = "remove one of them") -> None:
        """Enter ``file`` into ``files`` unless its ``key``, ``who`` in words, is taken, which is an error."""
        if files.setdefault(key, file) != file:
            self.errors.append(f"{files[key]} and {file} are both {who}: {remedy}.")


def files_of_two_uses(cases: Iterable[Case], channels: Sequence[str]) -> list[str]:
    """List files that are a scan and a label, or the scan of two subjects, modalities or parts."""
    uses: dict[Path, dict[Hashable, str]] = defaultdict(dict)
    for case in cases:
        part = "test" if case.test else "training"
        for channel, file in case.images.items():
            use = f"the {channels[channel]} scan of case {case.name} ({part} part)"
            uses[file.resolve()].setdefault((case.subject, channel, case.test), use)
        if case.label is not None:
            uses[case.label.resolve()].setdefault("label", f"the label of case {case.name} ({part} part)")
    return [
        f"{file} is {' and '.join(own.values())}: name it in one place only, for example by a path with a * that fits "
        "fewer files."
        for file, own in uses.items()
        if len(own) > 1
    ]


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
