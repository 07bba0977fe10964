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
    """Compute exp(-5 (1 - q)^2), q = min(1, (r - 0.2) / 0.25), r = t / t_max; 0 until r = 0.2: a teacher's weight.

    A teacher that has learned nothing yet would teach that everything is background.
    """
    q = (t / t_max - 0.2) / 0.25
    return exp(-5 * (1 - min(1.0, q)) ** 2) if q > 0 else 0.0


def ramp_up(t: float, t_max: float) -> float:
    """Compute 0.1 exp(-5 (1 - t / t_max)^2), the weight of consistency of Laine & Aila 2017, as SSL4MIS scales it."""
    return 0.1 * exp(-5 * (1 - t / t_max) ** 2)


CONSTANT = Schedule("1", "1", lambda t, t_max: 1.0)
ALPHA = Schedule("alpha", "0.1 exp(-5 (1 - r)), rising", alpha)
BETA = Schedule("beta", "0.1 exp(-5 r), falling", beta)
# a tenth of the paper's weights, for a network whose modalities share what they would have to be taught to share
SMALL_ALPHA = Schedule("alpha", "0.01 exp(-5 (1 - r)), rising", lambda t, t_max: alpha(t, t_max) / 10)
SMALL_BETA = Schedule("beta", "0.01 exp(-5 r), falling", lambda t, t_max: beta(t, t_max) / 10)
GAMMA = Schedule("gamma", "exp(-5 (1 - min(1, (r - 0.2) / 0.25))^2), 0 until r = 0.2", gamma)
RAMP_UP = Schedule("lambda", "0.1 exp(-5 (1 - r)^2), rising", ramp_up)
