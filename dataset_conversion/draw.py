"""The random draw of cases of published datasets."""

from collections.abc import Iterable

import numpy as np


def draw_names(names: Iterable[str], count: int, rng: np.random.Generator, what: str) -> list[str]:
    """Draw ``count`` of the names, whatever their order, and sort them. ValueError: there are fewer of ``what``."""
    candidates = sorted(names)
    if len(candidates) < count:
        raise ValueError(f"{count} {what} are to be drawn, but there are {len(candidates)}: convert without --paper.")
    return sorted(candidates[i] for i in rng.permutation(len(candidates))[:count])
