"""The time of a whole training, and of a case, from a trial of some seconds."""

import time
from functools import partial
from types import SimpleNamespace

import pytest
import torch

from nnunet_cmc.commands.trial_training import time_prediction, time_training


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


class Windows(torch.nn.Module):
    """A network that takes 0.05 s for a window, and half a second more for the first."""

    def __init__(self):
        super().__init__()
        self.seen = 0

    def forward(self, x):
        assert not self.training
        assert x.shape == (1, 2, 8, 8, 8)
        time.sleep(0.05 + 0.5 * (self.seen == 0))
        self.seen += 1
        return x


@pytest.mark.parametrize(
    ("size", "mirroring", "windows"),
    [([8, 8, 8], False, 1), ([4, 8.4, 16], False, 3), ([8, 8, 8], True, 4), ([9, 8, 12], True, 16)],
)
def test_a_case_is_its_windows_and_their_mirrored_ones(size, mirroring, windows):
    """Windows overlap by half; a side shorter than the patch is padded."""
    plan = SimpleNamespace(configuration={"median_image_size_in_voxels": size}, patch_size=[8, 8, 8])
    trainer = SimpleNamespace(
        configuration_manager=plan, network=Windows().train(), device=torch.device("cpu"), deep_supervision=True,
        dataloader_val=iter([{"data": torch.zeros(2, 2, 8, 8, 8)}]), inference_allowed_mirroring_axes=(0, 2),
    )  # fmt: skip
    trainer.set_deep_supervision_enabled = partial(setattr, trainer, "deep_supervision")
    assert time_prediction(trainer, mirroring) == pytest.approx(0.05 * windows, rel=0.2)
    assert not trainer.deep_supervision
