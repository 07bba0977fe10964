import pytest
import torch

from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.consistency import Consistency, rows_by_form


def test_pairs_get_the_form_of_their_data():
    pairs = torch.tensor([[0, 0], [1, 2], [3, -1], [-1, 4], [6, 5]])
    registered, others = rows_by_form(pairs)
    assert registered.tolist() == [0]
    assert others.tolist() == [1, 2, 6, 5]
    registered, others = rows_by_form(torch.tensor([[0, 0, -1], [1, -1, -1], [2, 3, -1]]))
    assert registered.tolist() == [0]
    assert others.tolist() == [2, 3]


def output_of(rows: int, present: list[list[bool]]) -> CMCOutput:
    torch.manual_seed(0)
    logits = torch.randn(rows, 2, 3, 8, 8, 8, requires_grad=True)
    features = torch.randn(rows, 2, 4, 2, 2, 2, requires_grad=True)
    return CMCOutput(logits, features, torch.tensor(present))


def run(output: CMCOutput, pairs: list[list[int]], labeled: int):
    target = torch.randint(0, 3, (labeled, 1, 8, 8, 8))
    positions = torch.rand(1, 3, 2, 2, 2).expand(len(output.logits), -1, -1, -1, -1)  # partners show the same place
    return Consistency(2, 3, 4)(output, target, torch.tensor(pairs), positions)


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_cac_is_for_unlabelled_rows_and_csc_for_all(form):
    if form == "paired":
        output, pairs, labeled = output_of(2, [[True, True]] * 2), [[0, 0], [1, 1]], 1
    else:
        output, pairs, labeled = output_of(4, [[True, False], [False, True]] * 2), [[0, 1], [2, 3]], 2
    csc, cac = run(output, pairs, labeled)
    csc_gradient, logits_of_csc = torch.autograd.grad(csc, [output.features, output.logits], allow_unused=True)
    assert csc_gradient[0].any()
    assert csc_gradient[-1].any() or form == "unpaired"  # random predictions are nowhere confident
    assert logits_of_csc is None
    gradient = torch.autograd.grad(cac, output.logits)[0]
    assert not gradient[:labeled].any()
    assert gradient[labeled:].flatten(1).any(1).all()


def test_nothing_to_compare_is_an_exact_zero_with_a_graph():
    output = output_of(2, [[True, False]] * 2)
    csc, cac = run(output, [[0, -1], [1, -1]], 1)
    assert csc == 0
    assert cac == 0
    (csc + cac).backward()
    assert not output.features.grad.any()
    assert not output.logits.grad.any()


def test_banks_are_the_state():
    state = Consistency(2, 3, 4).state_dict()
    assert any("csc.unpaired" in name for name in state)
    assert any("cac.unpaired" in name for name in state)
