"""Weights of loss terms over a training."""

from collections.abc import Callable
from dataclasses import dataclass
from math import exp


@dataclass(frozen=True)
class Schedule:
    """A weight over the training.

    Attributes:
        symbol: name of the weight in logs and tables.
        formula: the same in words, of r = t / T at epoch t of T.
        at: ``at(t, T)``, the weight at epoch t of T.
    """

    symbol: str
    formula: str
    at: Callable[[float, float], float]


def alpha(t: float, t_max: float) -> float:
    """Compute 0.1 exp(-5 (1 - t / t_max)), the paper's weight of CSC: from 0.0007 at epoch t = 0 to 0.1 at t_max."""
    return 0.1 * exp(-5 * (1 - t / t_max))


def beta(t: float, t_max: float) -> float:
    """Compute 0.1 exp(-5 t / t_max), the paper's weight of CAC: from 0.1 at epoch t = 0 to 0.0007 at t_max."""
    return 0.1 * exp(-5 * t / t_max)


def gamma(t: float, t_max: float) -> float:
    """Compute exp(-5 (1 - r)^2), r = min(1, t / (0.4 t_max)): the mean teacher's, from 0.007 to 1."""
    return exp(-5 * (1 - min(1.0, t / max(1.0, 0.4 * t_max))) ** 2)


CONSTANT = Schedule("1", "1", lambda t, t_max: 1.0)
ALPHA = Schedule("alpha", "0.1 exp(-5 (1 - r)), rising", alpha)
BETA = Schedule("beta", "0.1 exp(-5 r), falling", beta)
GAMMA = Schedule("gamma", "exp(-5 (1 - min(1, r / 0.4))^2), rising", gamma)
