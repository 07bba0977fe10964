"""How sure a difference between two systems is, over subjects and seeds."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Difference:
    """Mean difference and its 95 % interval.

    Attributes:
        mean: over seeds and subjects.
        low, high: ends of the interval.
        by_seed: the mean of each seed.
    """

    mean: float
    low: float
    high: float
    by_seed: tuple[float, ...]

    @property
    def seeds(self) -> int:
        """Number of seeds."""
        return len(self.by_seed)

    @property
    def spread(self) -> str:
        """Standard deviation of the seeds' means; empty of one seed."""
        return f"{np.std(self.by_seed, ddof=1):.1f}" if self.seeds > 1 else ""

    @property
    def excludes_zero(self) -> bool:
        """Whether zero lies outside of the interval; of one seed nobody knows the seeds' spread."""
        return self.seeds > 1 and not self.low <= 0 <= self.high

    def in_figures(self, decimals: int = 1) -> str:
        """Format the mean and its interval."""
        mean, low, high = (f"{value:+.{decimals}f}" for value in (self.mean, self.low, self.high))
        return f"{mean} [{low}, {high}]"

    def __str__(self) -> str:
        if self.seeds == 1:
            return f"one seed ({self.in_figures()})"
        return self.in_figures() if self.excludes_zero else f"none ({self.in_figures()})"


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
    return Difference(float(differences.mean()), float(low), float(high), tuple(differences.mean(1).tolist()))
