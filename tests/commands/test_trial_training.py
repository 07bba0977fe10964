"""The time of a whole training, from a trial of some seconds."""

import time
from types import SimpleNamespace

import pytest

from nnunet_cmc.commands.trial_training import EXPECTED, time_training


class Slow(SimpleNamespace):
    """A trainer whose first iterations take long."""

    num_epochs, num_iterations_per_epoch, num_val_iterations_per_epoch = 10, 5, 2

    def __init__(self):
        super().__init__(began=[], dataloader_train=iter(range(99)), dataloader_val=iter(range(99)))
        for step in ("on_train_start", "on_epoch_start", "on_train_epoch_start", "on_validation_epoch_start"):
            setattr(self, step, lambda step=step: self.began.append(step))

    def train_step(self, batch):
        time.sleep(0.1 if batch else 0.5)

    def validation_step(self, batch):
        time.sleep(0.05 if batch else 0.5)


@pytest.mark.parametrize("seconds", [0, 0.3])
def test_it_is_the_iterations_times_their_median_without_the_first(seconds):
    trainer = Slow()
    assert time_training(trainer, seconds) == pytest.approx(10 * (5 * 0.1 + 2 * 0.05), rel=0.2)
    assert trainer.began == ["on_train_start", "on_epoch_start", "on_train_epoch_start", "on_validation_epoch_start"]


def test_it_trains_no_longer_than_an_epoch():
    """Beyond the last epoch nnU-Net's schedule has no learning rate."""
    trainer = Slow()
    trainer.num_epochs = 1
    assert time_training(trainer, 100) == pytest.approx(5 * 0.1 + 2 * 0.05, rel=0.2)
    assert (next(trainer.dataloader_train), next(trainer.dataloader_val)) == (5, 2)


def test_what_it_prints_is_what_compare_reads():
    assert EXPECTED.match(f"The training is expected to take {1234.4:.0f} s\n")[1] == "1234"
