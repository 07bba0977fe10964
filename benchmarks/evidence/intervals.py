"""How sure a difference between two systems is, over subjects and seeds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean difference, its 95 % interval, and the means of the seeds."""

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def is_certain(self) -> bool:
        """Whether zero lies outside the interval, and all of several seeds are on one side of it."""
        if len(self.by_seed) == 1:  # nobody knows their spread
            return False
        return (self.low > 0 and min(self.by_seed) > 0) or (self.high < 0 and max(self.by_seed) < 0)

    def __str__(self) -> str:
        seeds = ", ".join(f"{value:+.1f}" for value in self.by_seed)
        doubt = "within the spread" if len(self.by_seed) > 1 else "one seed"
        verdict = "" if self.is_certain else f" (none: {doubt})"
        return f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]; seeds {seeds}{verdict}"


def paired_difference(ours: np.ndarray, theirs: np.ndarray, draws: int = 10_000, seed: int = 0) -> Difference:
    """Bootstrap percentile interval of ``ours - theirs``, seeds and subjects drawn anew independently.

    Args:
        ours, theirs: ``(seeds, subjects)``, the same seeds and subjects in the same order.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    seeds, subjects = differences.shape
    generator = np.random.default_rng(seed)
    rows = generator.integers(seeds, size=(draws, seeds, 1))
    columns = generator.integers(subjects, size=(draws, 1, subjects))
    means = differences[rows, columns].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(differences.mean()), float(low), float(high), tuple(differences.mean(1).tolist()))
