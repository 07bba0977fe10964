"""Weights of loss terms over a training."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
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


def gamma(t: float, t_max: float, start: float = 0.2) -> float:
    """Compute exp(-5 (1 - q)^2), q = min(1, (r - start) / 0.25), r = t / t_max; 0 until start: a teacher's weight.

    A teacher that has learned nothing yet would teach that everything is background.
    """
    q = (t / t_max - start) / 0.25
    return exp(-5 * (1 - min(1.0, q)) ** 2) if q > 0 else 0.0


def ramp(t: float, t_max: float) -> float:
    """Compute exp(-5 (1 - t / t_max)^2): from 0.0067 at epoch t = 0 to 1 at t_max (Laine & Aila, ICLR 2017)."""
    return exp(-5 * (1 - t / t_max) ** 2)


def constant(symbol: str, value: float) -> Schedule:
    """Make a weight that stays."""
    return Schedule(symbol, f"{value:g}", lambda t, t_max: value)


CONSTANT = constant("1", 1.0)
ALPHA = Schedule("alpha", "0.1 exp(-5 (1 - r)), rising", alpha)
BETA = Schedule("beta", "0.1 exp(-5 r), falling", beta)
# a tenth of the paper's weights, for a network whose modalities share what they would have to be taught to share
SMALL_ALPHA = Schedule("alpha", "0.01 exp(-5 (1 - r)), rising", lambda t, t_max: alpha(t, t_max) / 10)
SMALL_BETA = Schedule("beta", "0.01 exp(-5 r), falling", lambda t, t_max: beta(t, t_max) / 10)
GAMMA = Schedule("gamma", "exp(-5 (1 - min(1, (r - 0.2) / 0.25))^2), 0 until r = 0.2", gamma)
RAMP = Schedule("w", "exp(-5 (1 - r)^2), rising", ramp)
# CML's: of its contrast, and of what the better modality teaches the others
DELTA = constant("delta", 0.1)
OMEGA = Schedule("omega", "exp(-5 (1 - min(1, (r - 0.5) / 0.25))^2), 0 until r = 0.5", partial(gamma, start=0.5))
KAPPA = constant("kappa", 0.5)  # UMMKD's, of its distillation
LAMBDA = Schedule("lambda", "0.1 exp(-5 (1 - r)^2), rising", lambda t, t_max: 0.1 * ramp(t, t_max))  # CPS's
