"""What keeps a network from overfitting few labelled scans. (test_cmc_trainer.py has the mirroring.)"""

import numpy as np
import pytest
import torch
from short_trainers import short
from torch.nn.functional import cross_entropy


@pytest.mark.parametrize(
    ("name", "planned", "by_sample"),
    [("CMCTrainerPaper", False, False), ("CMCTrainer", False, True), ("CMCTrainer", True, False)],
)
def test_dice_of_every_sample_or_of_the_batch(registered, name, planned, by_sample):
    """The small sample counts alike or does not, as the recipe says, or else the plans."""
    registered.plans["configurations"]["3d_fullres"]["batch_dice"] = planned
    trainer = registered.trainer(short(name))
    trainer.initialize()
    logits = torch.randn(2, 2, 8, 8, 8, generator=torch.Generator().manual_seed(0))
    target = torch.zeros(2, 1, 8, 8, 8, dtype=torch.int16)
    target[0, 0, :6], target[1, 0, 0, 0, 0] = 1, 1
    predicted, true = logits.softmax(1)[:, 1].numpy(), target[:, 0].numpy()
    axes = (1, 2, 3) if by_sample else None
    dice = 2 * (predicted * true).sum(axes) / (predicted.sum(axes) + true.sum(axes))
    expected = float(cross_entropy(logits, target[:, 0].long())) - np.mean(dice)
    assert float(trainer.loss(logits, target)) == pytest.approx(expected, abs=1e-4)
