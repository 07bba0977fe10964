"""nnU-Net's polynomial learning rate, after a short rise."""

from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch.optim import Optimizer

WARM_UP = 50  # iterations; without it AdamW's first steps push the rare classes out, and they come back late or never


class WarmUpPolyLR(PolyLRScheduler):
    """Rises linearly over the first iterations, and falls polynomially to zero at the last.

    Args:
        initial_lr: the highest rate.
        epochs, iterations: of the training, and of each epoch.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float, epochs: int, iterations: int):
        self.iterations = iterations
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: float | None = None) -> None:
        """Set the rate for a moment of the training, in epochs: 1.5 is the middle of the second."""
        epoch = 0.0 if current_step is None else current_step
        super().step(epoch)
        rise = min(1.0, (epoch * self.iterations + 1) / WARM_UP)
        for group in self.optimizer.param_groups:
            group["lr"] *= rise
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
