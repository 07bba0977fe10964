import numpy as np
import pytest
import torch
from references import cac_occupancy, cac_unpaired

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import AreaSimilarity, Setting

SETTING = Setting(num_modalities=2, num_classes=3, num_channels=4, batch_dice=True)
TAU = 0.5


def output_of(present: list[list[bool]]) -> CMCOutput:
    logits = 2 * torch.randn(len(present), 2, 3, 4, 4, 4, generator=torch.Generator().manual_seed(0))
    return CMCOutput(logits.requires_grad_(), torch.zeros(len(present), 2, 4, 1, 1, 1), torch.tensor(present))


def batch_of(pairs: list[list[int]], rows: int, labeled: int) -> Batch:
    positions = torch.rand(1, 3, 2, 2, 2, generator=torch.Generator().manual_seed(1)).expand(rows, -1, -1, -1, -1)
    fusion = torch.eye(2, dtype=torch.bool).expand(rows, -1, -1)
    return Batch(
        torch.zeros(rows, 2, 4, 4, 4), torch.zeros(labeled, 1, 4, 4, 4), fusion, torch.tensor(pairs), positions
    )


def expected_of(p: np.ndarray, rows: list[int]) -> float:
    """Symmetric InfoNCE in loops; every class is shown."""
    s = np.zeros((len(rows), len(rows)))
    for i, j in np.ndindex(s.shape):
        a, b = p[rows[i], 0, 1:], p[rows[j], 1, 1:]
        s[i, j] = np.mean([2 * (a[k] * b[k]).sum() / ((a[k] ** 2).sum() + (b[k] ** 2).sum()) for k in range(2)])
    e = np.exp(s / TAU)
    return -np.mean([np.log(e[i, i] / e[i].sum()) / 2 + np.log(e[i, i] / e[:, i].sum()) / 2 for i in range(len(e))])


def test_registered_rows_labelled_or_not_are_contrasted_with_each_other():
    output = output_of([[True, True]] * 4)
    term = AreaSimilarity(SETTING)
    value = term(output, batch_of([[i, i] for i in range(4)], 4, 2))
    p = output.logits.detach().softmax(2).numpy()
    assert value.item() == pytest.approx(expected_of(p, [0, 1, 2, 3]), rel=1e-5)
    assert value.item() != pytest.approx(expected_of(p, [2, 3]), rel=1e-2)
    (gradient,) = torch.autograd.grad(value, output.logits)
    assert gradient.flatten(2).any(2).all(), "both modalities of every row learn"
    assert term.similarity.diagonal < 1


def test_a_single_pair_teaches_nothing():
    output = output_of([[True, True], [True, False]])
    value = AreaSimilarity(SETTING)(output, batch_of([[0, 0], [1, -1]], 2, 1))
    value.backward()
    assert value == 0
    assert not output.logits.grad.any()


def test_unpaired_scans_are_compared_by_class():
    output, batch = output_of([[True, False], [False, True]] * 2), batch_of([[0, 1], [2, 3]], 4, 2)
    value = AreaSimilarity(SETTING)(output, batch)
    p = output.logits.detach().softmax(2)
    coarse = p.unfold(3, 2, 2).unfold(4, 2, 2).unfold(5, 2, 2).mean((-3, -2, -1)).numpy()
    positions = batch.positions[:, None].expand(-1, 2, -1, -1, -1, -1).numpy()
    occupancies = [cac_occupancy(coarse, output.present.numpy(), positions, m) for m in range(2)]
    assert value.item() == pytest.approx(cac_unpaired(occupancies, 3, TAU), rel=1e-4)
    (gradient,) = torch.autograd.grad(value, output.logits)
    assert [[bool(x.any()) for x in row] for row in gradient] == output.present.tolist()
