import pytest
import torch

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import Pseudo, Setting


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
