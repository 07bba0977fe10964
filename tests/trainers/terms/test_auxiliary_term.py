"""L_sep against a computation in numpy: Dice + CE of each modality that is there, summed."""

import numpy as np
import pytest
import torch

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import AuxiliarySupervised, Setting

PRESENT = torch.tensor([[True, False, True], [True, False, False], [True, True, True]])  # the last is not labelled


def inputs(present=PRESENT) -> tuple[CMCOutput, Batch]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 3, 2, 4, 4, 4, generator=generator) * present[:, :, None, None, None, None]
    logits.requires_grad_()
    target = torch.randint(0, 2, (2, 1, 4, 4, 4), generator=generator).short()
    shown = torch.zeros(3, 3, 3, dtype=torch.bool)  # no modality of the labelled rows is shown to the fusion
    batch = Batch(torch.zeros(3, 3, 4, 4, 4), target, shown, torch.zeros(0, 3).long(), torch.zeros(3, 3, 1, 1, 1))
    return CMCOutput(torch.zeros(1), torch.zeros(1), present, auxiliary={"alone": (logits,)}), batch


def dice_and_ce(p: np.ndarray, y: np.ndarray, batch_dice: bool) -> float:
    """Of the probability ``p (n, 4, 4, 4)`` of class 1 and labels: cross-entropy minus the Dice of class 1."""
    ce = -np.log(np.where(y == 1, p, 1 - p)).mean()
    axes = None if batch_dice else (1, 2, 3)
    dice = (2 * (p * y).sum(axes) + 1e-5) / ((p + y).sum(axes) + 1e-5)
    return ce - dice.mean()


@pytest.mark.parametrize("batch_dice", [False, True])
def test_the_sum_over_modalities_of_dice_and_cross_entropy_of_the_labelled_rows(batch_dice):
    output, batch = inputs()
    term = AuxiliarySupervised(Setting(3, 2, 1, batch_dice))
    found = term(output, batch)
    (logits,) = output.auxiliary["alone"]
    p, y = logits.detach().double().softmax(2)[:, :, 1].numpy(), batch.target[:, 0].numpy()
    expected = dice_and_ce(p[:2, 0], y, batch_dice) + dice_and_ce(p[:1, 2], y[:1], batch_dice)
    assert found.item() == pytest.approx(expected, rel=1e-5)
    (gradient,) = torch.autograd.grad(found, logits)
    reached = gradient.flatten(2).any(2)
    assert reached[:2].equal(PRESENT[:2])
    assert not reached[2].any()


def test_it_is_zero_with_a_graph_where_nothing_is_there():
    output, batch = inputs(PRESENT & False)
    found = AuxiliarySupervised(Setting(3, 2, 1, False))(output, batch)
    assert found.item() == 0
    (gradient,) = torch.autograd.grad(found, output.auxiliary["alone"])
    assert not gradient.any()
