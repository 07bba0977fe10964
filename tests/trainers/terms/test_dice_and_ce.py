import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss

from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE

K, SMOOTH = 3, 1e-5
seeds, counts, either = st.integers(0, 2**20), st.integers(1, 4), st.booleans()


def rows(seed: int, count: int, ignoring: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    logits = torch.randn(count, K, 2, 3, 2, generator=draw)
    return logits, torch.randint(0, K + ignoring, (count, 1, 2, 3, 2), generator=draw).short()


def by_hand(logits, target, weights, batch_dice: bool) -> float:
    """In numpy, voxel by voxel."""
    logits, target, weights = logits.numpy().astype(float), target.numpy()[:, 0], weights.numpy().astype(float)
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    ce = voxels = 0.0
    hit, sizes = np.zeros((len(p), K)), np.zeros((len(p), K))
    for (i, *place), label in np.ndenumerate(target):
        if label == K:
            continue
        here = p[(i, slice(None), *place)]
        ce, voxels = ce - weights[i] * np.log(here[label]), voxels + 1
        hit[i, label] += here[label]
        sizes[i] += here
        sizes[i, label] += 1
    hit, sizes, mean = hit[:, 1:], sizes[:, 1:], weights.mean()
    if batch_dice:
        w = weights[:, None] / mean
        dice = mean * ((2 * (w * hit).sum(0) + SMOOTH) / ((w * sizes).sum(0) + SMOOTH)).mean()
    else:
        dice = (weights * ((2 * hit + SMOOTH) / (sizes + SMOOTH)).mean(1)).mean()
    return ce / max(voxels, 1) - dice


@given(seeds, counts, either, either)
def test_it_is_dice_and_ce_of_weighted_rows(seed, count, batch_dice, ignoring):
    logits, target = rows(seed, count, ignoring)
    weights = torch.rand(count, generator=torch.Generator().manual_seed(seed)) + 0.01
    found = DiceAndCE(batch_dice, K)(logits, target, weights)
    assert float(found) == pytest.approx(by_hand(logits, target, weights, batch_dice), rel=1e-4, abs=1e-5)


@given(seeds, counts, either, either)
def test_rows_that_all_count_1_have_the_value_and_gradient_of_nnunet(seed, count, batch_dice, ignoring):
    logits, target = rows(seed, count, ignoring)
    logits.requires_grad_()
    found = DiceAndCE(batch_dice, K)(logits, target, torch.ones(count))
    dice = {"batch_dice": batch_dice, "smooth": SMOOTH, "do_bg": False, "ddp": False}
    stock = DC_and_CE_loss(dice, {}, ignore_label=K if ignoring else None, dice_class=MemoryEfficientSoftDiceLoss)
    expected = stock(logits, target.float())
    torch.testing.assert_close(DiceAndCE(batch_dice, K if ignoring else None)(logits, target), expected)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (found, expected)))


@given(seeds, counts, either, st.floats(0, 1))
def test_the_loss_of_rows_of_one_weight_is_that_weight_of_it(seed, count, batch_dice, weight):
    logits, target = rows(seed, count)
    loss = DiceAndCE(batch_dice, K)
    weighted, whole = (loss(logits, target, torch.full((count,), w)) for w in (weight, 1.0))
    torch.testing.assert_close(weighted, weight * whole)


@given(seeds, st.integers(2, 4), either)
def test_a_row_of_weight_0_teaches_nothing(seed, count, batch_dice):
    logits, target = rows(seed, count)
    logits.requires_grad_()
    weights = torch.tensor([0.0] + [1.0] * (count - 1))
    loss = DiceAndCE(batch_dice, K)
    found = loss(logits, target, weights)
    torch.testing.assert_close(found, loss(logits[1:], target[1:], weights[1:]) * (count - 1) / count)
    assert not torch.autograd.grad(found, logits)[0][0].any()


@pytest.mark.parametrize("batch_dice", [False, True])
@pytest.mark.parametrize("weights", [None, torch.ones(2)])
def test_where_nothing_is_known_it_is_exactly_zero(batch_dice, weights):
    """Dice of nothing would be -1, the best there is."""
    logits = torch.randn(2, K, 4, 4, 4, requires_grad=True)
    loss = DiceAndCE(batch_dice, K)(logits, torch.full((2, 1, 4, 4, 4), K), weights)
    assert loss.item() == 0
    loss.backward()
    assert not logits.grad.any()
