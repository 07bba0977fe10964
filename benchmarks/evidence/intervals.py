"""How sure a difference between two systems is, over subjects and seeds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean difference, its 95 % interval, and of how many seeds it is."""

    mean: float
    low: float
    high: float
    seeds: int

    @property
    def is_one(self) -> bool:
        """Whether zero lies outside of the interval; of one seed nobody knows the seeds' spread."""
        return self.seeds > 1 and not self.low <= 0 <= self.high

    def __str__(self) -> str:
        found = f"{self.mean:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"
        if self.seeds == 1:
            return f"one seed ({found})"
        return found if self.is_one else f"none ({found})"


def paired_difference(ours: np.ndarray, theirs: np.ndarray, draws: int = 10_000, seed: int = 0) -> Difference:
    """Bootstrap the percentile interval of ``ours - theirs``: draw seeds anew, and of each of them its subjects.

    Args:
        ours, theirs: ``(seeds, subjects)``; those of a seed are the same subjects in the same order, those of two seeds
            are different ones.
    """
    differences = np.asarray(ours, dtype=float) - np.asarray(theirs, dtype=float)
    seeds, subjects = differences.shape
    generator = np.random.default_rng(seed)
    drawn_seeds = generator.integers(seeds, size=(draws, seeds, 1))
    drawn_subjects = generator.integers(subjects, size=(draws, seeds, subjects))
    means = differences[drawn_seeds, drawn_subjects].mean((1, 2))
    low, high = np.percentile(means, [2.5, 97.5])
    return Difference(float(differences.mean()), float(low), float(high), seeds)
