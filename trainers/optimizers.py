"""Optimizers and learning rate schedules of recipes."""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import Tensor, nn
from torch.optim import Optimizer

from nnunet_cmc.networks.unet import UNetEncoder

WARM_UP = 50  # iterations; without it AdamW's first steps suppress rare classes, which recover late or never


class RateSchedule(Protocol):
    """The learning rate over the training."""

    initial_lr: float

    def step(self, current_step: float | None = None) -> None:
        """Set the rate for a time in epochs."""


@dataclass(frozen=True)
class AdamW:
    """AdamW, whose rate rises over the first iterations and then decays polynomially to zero, as nnU-Net's does.

    Attributes:
        weight_decay: when training from random weights; fine-tuning is Adam, without decay.
        fine_tuning_rate: for pretrained weights (default: the paper's); None: the planned rate, as for random weights.
    """

    weight_decay: float = 1e-2
    fine_tuning_rate: float | None = 1e-5

    def build(
        self, network: nn.Module, planned_rate: float, epochs: int, iterations: int
    ) -> tuple[Optimizer, RateSchedule]:
        """Make the optimizer at the planned rate, and its schedule over so many epochs of so many iterations."""
        optimizer = torch.optim.AdamW(trained(network), planned_rate, weight_decay=self.weight_decay, fused=True)
        return optimizer, WarmUpPolyLR(optimizer, planned_rate, epochs, iterations)

    def start(self, optimizer: Optimizer, schedule: RateSchedule, pretrained: bool) -> str:
        """Choose the rate by whether the weights are ``pretrained``, and return a sentence about it.

        nnU-Net loads pretrained weights after the optimizer is built, so it is not known earlier.
        """
        rate = self.fine_tuning_rate if pretrained else None
        if rate is None:
            origin = "pretrained weights" if pretrained else "scratch"
            return f"Training from {origin}: AdamW at the planned learning rate {schedule.initial_lr:g}."
        schedule.initial_lr = rate
        for group in optimizer.param_groups:
            group["weight_decay"] = 0.0  # AdamW without decay is Adam
        return f"Training from pretrained weights: Adam at the fine-tuning learning rate {rate:g}."


@dataclass(frozen=True)
class ConstantAdam:
    """Adam at a constant rate, whatever the plans say.

    Attributes:
        rate: the paper's, by default.
    """

    rate: float = 1e-5

    def build(
        self, network: nn.Module, planned_rate: float, epochs: int, iterations: int
    ) -> tuple[Optimizer, RateSchedule]:
        """Make the optimizer."""
        return torch.optim.Adam(trained(network), self.rate, fused=True), ConstantRate(self.rate)

    def start(self, optimizer: Optimizer, schedule: RateSchedule, pretrained: bool) -> str:
        """Return a sentence about the rate."""
        return f"Training as printed: Adam at a constant {self.rate:g}."


@dataclass(frozen=True)
class StockSGD:
    """nnU-Net's own optimizer and schedule, whatever the plans say."""

    rate: float = 1e-2
    weight_decay: float = 3e-5

    def build(
        self, network: nn.Module, planned_rate: float, epochs: int, iterations: int
    ) -> tuple[Optimizer, RateSchedule]:
        """Make the optimizer, and its schedule over so many epochs."""
        optimizer = torch.optim.SGD(
            trained(network), self.rate, momentum=0.99, nesterov=True, weight_decay=self.weight_decay, fused=True
        )
        return optimizer, EpochPolyLR(optimizer, self.rate, epochs)

    def start(self, optimizer: Optimizer, schedule: RateSchedule, pretrained: bool) -> str:
        """Return a sentence about the rate."""
        return f"Training with nnU-Net's own optimizer: SGD at {self.rate:g}."


@dataclass(frozen=True)
class ByLength:
    """AdamW for short trainings, in which it learns more, and nnU-Net's optimizer for long ones of its own network.

    Attributes:
        long_from: number of iterations of a long training; nnU-Net's own has 250,000.
        short, long: the optimizers.
    """

    long_from: int = 25_000
    short: AdamW = field(default_factory=AdamW, repr=False)
    long: StockSGD = field(default_factory=StockSGD, repr=False)

    def build(
        self, network: nn.Module, planned_rate: float, epochs: int, iterations: int
    ) -> tuple[Optimizer, RateSchedule]:
        """Make one of the optimizers, and its schedule."""
        stock = any(isinstance(module, UNetEncoder) for module in network.modules())
        chosen = self.long if stock and epochs * iterations >= self.long_from else self.short
        return chosen.build(network, planned_rate, epochs, iterations)

    def start(self, optimizer: Optimizer, schedule: RateSchedule, pretrained: bool) -> str:
        """Choose the rate as the built optimizer does, and return a sentence about it."""
        chosen = self.long if isinstance(optimizer, torch.optim.SGD) else self.short
        return chosen.start(optimizer, schedule, pretrained)


def trained(network: nn.Module) -> list[nn.Parameter]:
    """Return the parameters that are not frozen."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


class EpochPolyLR(PolyLRScheduler):
    """nnU-Net's schedule, which changes the rate between epochs alone."""

    def step(self, current_step: float | None = None) -> None:
        """Set the rate for a moment of the training, in epochs."""
        super().step(None if current_step is None else int(current_step))


class WarmUpPolyLR(PolyLRScheduler):
    """Raise the rate linearly over the first iterations, then let it decay polynomially to zero.

    Args:
        initial_lr: the highest rate.
        epochs, iterations: of the training, and of each epoch.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, epochs: int, iterations: int):
        self.iterations = iterations
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: float | None = None) -> None:
        """Set the rate for a time in epochs: 1.5 is the middle of the second epoch."""
        epoch = 0.0 if current_step is None else current_step
        super().step(epoch)
        rise = min(1.0, (epoch * self.iterations + 1) / WARM_UP)
        for group in self.optimizer.param_groups:
            group["lr"] *= rise
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


class ConstantRate:
    """A schedule that keeps the rate constant; nnU-Net steps a schedule every epoch."""

    def __init__(self, rate: float):
        self.initial_lr = rate

    def step(self, current_step: float | None = None) -> None:
        """Change nothing."""


def order_moments_as_weights(optimizer: Optimizer) -> None:
    """Give loaded moments the weights' order in memory, which torch's fused optimizers take for granted.

    It differs where a checkpoint of a CPU is continued on a GPU: see :meth:`CMCNet.order_for`.
    """
    for parameter, state in optimizer.state.items():
        for name, moment in state.items():
            if isinstance(moment, Tensor) and moment.ndim and moment.stride() != parameter.stride():
                state[name] = torch.empty_like(parameter).copy_(moment)
