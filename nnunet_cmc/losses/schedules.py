"""The weights of the two consistency losses over training, as in the paper (CMC, implementation details)."""

from math import exp


def alpha(t: float, t_max: float) -> float:
    """Weight of CSC, 0.1 exp(-5 (1 - t / t_max)): rises from 0.0007 at t = 0 to 0.1 at t = t_max (epochs)."""
    return 0.1 * exp(-5 * (1 - t / t_max))


def beta(t: float, t_max: float) -> float:
    """Weight of CAC, 0.1 exp(-5 t / t_max): falls from 0.1 at t = 0 to 0.0007 at t = t_max (epochs)."""
    return 0.1 * exp(-5 * t / t_max)
