"""Finding the folder of an unpacked archive, and drawing scans, for the converters of published datasets."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from nnunet_cmc.utils.files import visible


def find_archive_folder(archive: str | Path, inside: str) -> Path:
    """Find the folder that holds ``inside``: ``archive``, or the one folder in it that does.

    Raises:
        ValueError: there is no such folder, or there are several.
    """
    root = Path(archive)
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: unpack the archive, and give its folder.")
    found = [folder for folder in (root, *visible(root)) if (folder / inside).exists()]
    if not found or (len(found) > 1 and found[0] != root):
        where = f"{len(found)} folders with {inside} in them" if found else f"no {inside}"
        raise ValueError(f"{root} has {where}: give the folder of the unpacked archive.")
    return found[0]


def draw_names(names: Iterable[str], count: int, rng: np.random.Generator, what: str) -> list[str]:
    """Draw ``count`` of the names, and sort them; the draw does not depend on their order.

    Raises:
        ValueError: there are fewer; ``what`` names them in the message.
    """
    candidates = sorted(names)
    if len(candidates) < count:
        raise ValueError(f"{count} {what} are to be drawn, but there are {len(candidates)}: convert without --paper.")
    return sorted(candidates[i] for i in rng.permutation(len(candidates))[:count])
