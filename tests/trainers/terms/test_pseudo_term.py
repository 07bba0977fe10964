import numpy as np
import pytest
import torch

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import Pseudo, Setting

IGNORED = 3  # K, of three classes


def term_and_gradients(weights: list[float] | None, batch_dice: bool = False) -> tuple[torch.Tensor, tuple]:
    """Of a labelled row and three unlabelled ones, the last of which lacks modality 0."""
    torch.manual_seed(0)
    scales = [torch.randn(4, 2, 3, *[side] * 3, requires_grad=True) for side in (8, 4, 2)]
    present = torch.ones(4, 2, dtype=torch.bool)
    present[3, 0] = False
    fusion = torch.eye(2, dtype=torch.bool) & present[:, None]
    target, nothing = torch.randint(0, 3, (4, 1, 8, 8, 8)), torch.zeros(0)
    batch = Batch(
        torch.zeros(4, 2, 8, 8, 8), target[:1], fusion, nothing, nothing,
        pseudo_targets=target[1:], pseudo_weights=None if weights is None else torch.tensor(weights),
    )  # fmt: skip
    term = Pseudo(Setting(2, 3, 8, batch_dice))(CMCOutput(scales[0], nothing, present, tuple(scales[1:])), batch)
    return term, torch.autograd.grad(term, scales[:2])


def dice_and_ce(logits: np.ndarray, target: np.ndarray, weight: float) -> tuple[float, float, int]:
    """Of one row: weighted Dice of the foreground, the weighted sum of CE, and how many voxels count, in loops."""
    p = np.exp(logits - logits.max(0)) / np.exp(logits - logits.max(0)).sum(0)
    known = target != IGNORED
    ce = -sum(np.log(p[(target[voxel], *voxel)]) for voxel in map(tuple, np.argwhere(known)))
    dice = [
        (2 * p[k][known & (target == k)].sum() + 1e-5) / (p[k][known].sum() + (known & (target == k)).sum() + 1e-5)
        for k in (1, 2)
    ]
    return weight * np.mean(dice), weight * ce, known.sum()


def test_the_term_is_the_dice_and_ce_of_every_modality_at_every_resolution_but_the_coarsest():
    """Modality 0 is in two of the unlabelled rows, modality 1 in all three; some voxels have no sure label."""
    torch.manual_seed(0)
    weights = [0.5, 1.0, 0.25]
    scales = [torch.randn(4, 2, 3, *[side] * 3, dtype=torch.float64) for side in (8, 4, 2)]
    present = torch.ones(4, 2, dtype=torch.bool)
    present[3, 0] = False
    target, nothing = torch.randint(0, IGNORED + 1, (3, 1, 8, 8, 8)), torch.zeros(0)
    batch = Batch(
        torch.zeros(4, 2, 8, 8, 8), torch.zeros(1, 1, 8, 8, 8), nothing, nothing, nothing,
        pseudo_targets=target, pseudo_weights=torch.tensor(weights, dtype=torch.float64),
    )  # fmt: skip
    found = Pseudo(Setting(2, 3, 8, False))(CMCOutput(scales[0], nothing, present, tuple(scales[1:])), batch)
    of_scales = []
    coarse = target[:, :, 1::2, 1::2, 1::2]  # torch's nearest-exact takes the second of two
    for scale, labels in enumerate((target, coarse)):
        label, of_modalities = labels[:, 0].numpy(), []
        for modality, rows in ((0, (0, 1)), (1, (0, 1, 2))):
            each = [dice_and_ce(scales[scale][row + 1, modality].numpy(), label[row], weights[row]) for row in rows]
            dice, ce, voxels = (np.array(part) for part in zip(*each, strict=True))
            of_modalities.append(ce.sum() / voxels.sum() - dice.mean())
        of_scales.append(np.mean(of_modalities))
    assert found.item() == pytest.approx((of_scales[0] + 0.5 * of_scales[1]) / 1.5, rel=1e-5)


@pytest.mark.parametrize("batch_dice", [False, True])
def test_without_weights_every_row_counts_1(batch_dice):
    torch.testing.assert_close(*(term_and_gradients(weights, batch_dice) for weights in (None, [1.0, 1.0, 1.0])))


def test_a_row_counts_as_much_as_its_pseudo_label_weighs_in_every_modality_and_at_every_resolution():
    _, whole = term_and_gradients(None)
    _, weighted = term_and_gradients([0.5, 0.0, 0.25])
    for before, after in zip(whole, weighted, strict=True):
        assert before[1:].flatten(2).any(2).tolist() == [[True, True], [True, True], [False, True]]
        expected = before * torch.tensor([0.0, 0.5, 0.0, 0.25])[:, None, None, None, None, None]
        torch.testing.assert_close(after, expected)
