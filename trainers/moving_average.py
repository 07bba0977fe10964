"""The moving average of a network's weights, which predicts better than the weights while the learning rate is high."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel


class MovingAverage(AveragedModel):
    """A copy of a network in training, whose weights are the moving average of the network's (Polyak & Juditsky 1992).

    It is no part of the network, and does not predict after the training: by then the learning rate is zero, and the
    network's own weights no longer change.

    Args:
        network: to copy.
        momentum: of the average, for each step; at the start of a training it is lower, see :func:`follow`.
    """

    def __init__(self, network: nn.Module, momentum: float):
        super().__init__(network, multi_avg_fn=self._follow)
        self.momentum = momentum
        self.requires_grad_(False).eval()

    def _follow(self, average: Sequence[Tensor], network: Sequence[Tensor], _: Tensor | int) -> None:
        """Follow the network. The number of updates that torch hands over lies on the GPU, and would be waited for."""
        follow(average, network, int(self.n_averaged), self.momentum)


def momentum_of(iterations: int) -> float:
    """Return the momentum for a training of this many steps: 0.97 up to 400, 0.999 for 250,000, a power law between."""
    return 1 - 0.03 * min(1.0, (400 / iterations) ** 0.53)


def follow(average: Sequence[Tensor], network: Sequence[Tensor], updates: int, momentum: float) -> None:
    """Move ``average`` to ``m average + (1 - m) network`` with ``m = min(1 - 1 / (t + 1), momentum)`` after t updates.

    A constant m would keep a share ``m ** t`` of the initial random weights, for hundreds of iterations.
    """
    torch._foreach_lerp_(list(average), list(network), max(1 / (updates + 1), 1 - momentum))
