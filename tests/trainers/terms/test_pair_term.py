import numpy as np
import pytest
import torch
from references import csc_prototypes, csc_unpaired

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses import CACLoss
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import CAC, CSC, Setting
from nnunet_cmc.trainers.terms.pair_term import rows_by_form

SETTING = Setting(num_modalities=2, num_classes=3, num_channels=4, batch_dice=True)


def test_pairs_get_the_form_of_their_data():
    pairs = torch.tensor([[0, 0], [1, 2], [3, -1], [-1, 4], [6, 5]])
    registered, others = rows_by_form(pairs)
    assert registered.tolist() == [0]
    assert others.tolist() == [1, 2, 6, 5]
    registered, others = rows_by_form(torch.tensor([[0, 0, -1], [1, -1, -1], [2, 3, -1]]))
    assert registered.tolist() == [0]
    assert others.tolist() == [2, 3]


def output_of(rows: int, present: list[list[bool]], patch=(8, 8, 8), sharpness: float = 1.0) -> CMCOutput:
    torch.manual_seed(0)
    logits = (sharpness * torch.randn(rows, 2, 3, *patch)).requires_grad_()
    features = torch.randn(rows, 2, 4, 2, 2, 2, requires_grad=True)
    return CMCOutput(logits, features, torch.tensor(present))


def run(output: CMCOutput, pairs: list[list[int]], labeled: int):
    target = torch.randint(0, 3, (labeled, 1, 8, 8, 8))
    positions = torch.rand(1, 3, 2, 2, 2).expand(len(output.logits), -1, -1, -1, -1)  # partners show the same place
    data, fusion = torch.zeros(len(output.logits), 2, 8, 8, 8), torch.ones(len(output.logits), 2, 2, dtype=torch.bool)
    batch = Batch(data, target, fusion, torch.tensor(pairs), positions)
    return CSC(SETTING)(output, batch), CAC(SETTING)(output, batch)


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_cac_is_for_unlabelled_rows_and_csc_for_all(form):
    if form == "paired":
        output, pairs, labeled = output_of(2, [[True, True]] * 2), [[0, 0], [1, 1]], 1
    else:
        # so sharp that some predictions are confident
        output, pairs, labeled = output_of(4, [[True, False], [False, True]] * 2, sharpness=3), [[0, 1], [2, 3]], 2
    csc, cac = run(output, pairs, labeled)
    csc_gradient, logits_of_csc = torch.autograd.grad(csc, [output.features, output.logits], allow_unused=True)
    assert csc_gradient[0].any()
    assert csc_gradient[-1].any()
    assert logits_of_csc is None
    gradient = torch.autograd.grad(cac, output.logits)[0]
    assert not gradient[:labeled].any()
    assert gradient[labeled:].flatten(1).any(1).all()


def test_unpaired_csc_is_over_labels_and_confident_predictions():
    output = output_of(4, [[True, False], [False, True]] * 2, sharpness=3)
    target = torch.randint(0, 3, (2, 1, 8, 8, 8))
    batch = Batch(torch.zeros(4, 2, 8, 8, 8), target, torch.diag_embed(output.present),
                  torch.tensor([[0, 1], [2, 3]]), torch.zeros(4, 3, 2, 2, 2))  # fmt: skip
    voxels = np.zeros((4, 2, 3, 8, 8, 8))
    for k in range(3):
        voxels[:2, :, k] = target.numpy() == k
    probabilities = output.logits.detach().softmax(2).numpy()
    for row, m in ((2, 0), (3, 1)):
        voxels[row, m] = probabilities[row, m] > 0.9
    assert 0 < voxels[2:].sum() < 2 * 8**3
    weights = voxels.reshape(4, 2, 3, 2, 4, 2, 4, 2, 4).mean((4, 6, 8))
    prototypes = csc_prototypes(output.features.detach().numpy(), output.present.numpy(), weights)
    found = CSC(SETTING)(output, batch).item()
    assert found == pytest.approx(csc_unpaired(prototypes, 0.1), rel=1e-4)


@pytest.mark.parametrize("term", [CSC, CAC])
def test_each_pair_of_a_mixed_batch_weighs_the_same(term):
    """Of one registered pair and two unpaired ones, all unlabelled."""
    present = [[True, True], *[[True, False], [False, True]] * 2]
    output = output_of(5, present, sharpness=3)
    positions = torch.rand(1, 3, 2, 2, 2).expand(5, -1, -1, -1, -1)

    def over(*pairs: list[int]) -> torch.Tensor:
        data, target = torch.zeros(5, 2, 8, 8, 8), torch.zeros(0, 1, 8, 8, 8)
        return term(SETTING)(
            output, Batch(data, target, torch.diag_embed(output.present), torch.tensor(pairs), positions)
        )

    registered, unpaired = over([0, 0]), over([1, 2], [3, 4])
    assert abs(registered - unpaired) > 0.01
    torch.testing.assert_close(over([0, 0], [1, 2], [3, 4]), (registered + 2 * unpaired) / 3)


def cac_of_three(logits: torch.Tensor, predicted: torch.Tensor) -> tuple[torch.Tensor, CAC]:
    """CAC of labelled rows of three registered modalities, of which some have a prediction."""
    present = torch.ones(len(logits), 3, dtype=torch.bool)
    output = CMCOutput(logits, torch.randn(len(logits), 3, 4, 2, 2, 2), present)
    pairs = torch.arange(len(logits))[:, None].expand(-1, 3)
    target = torch.zeros(len(logits), 1, 8, 8, 8)
    batch = Batch(torch.zeros(len(logits), 3, 8, 8, 8), target, torch.diag_embed(predicted), pairs, logits)
    term = CAC(Setting(num_modalities=3, num_classes=3, num_channels=4, batch_dice=True))
    return term(output, batch), term


def test_cac_contrasts_cases_whatever_the_places_of_their_two_predictions():
    """Of three fused modalities two have a prediction; the logits of the third are zeros, which say nothing."""
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 3, 8, 8, 8)
    predicted = torch.tensor([[True, True, False], [False, True, True], [True, False, True]])
    logits[~predicted] = 0
    found, term = cac_of_three(logits, predicted)
    two = torch.stack([row[there] for row, there in zip(logits, predicted, strict=True)])
    loss = CACLoss("paired")
    torch.testing.assert_close(found, loss(two.softmax(2), torch.ones(3, 2, dtype=torch.bool)))
    assert term.similarity.off_diagonal == loss.similarity.off_diagonal


def test_cac_of_more_than_two_predictions_is_the_mean_over_pairs_of_modalities():
    torch.manual_seed(0)
    logits = torch.randn(3, 3, 3, 8, 8, 8)
    predicted = torch.tensor([[True, True, True], [False, True, True], [True, False, True]])
    found, _ = cac_of_three(logits, predicted)
    loss = CACLoss("paired")
    torch.testing.assert_close(found, loss(logits.softmax(2), predicted))
    assert found != loss(logits.softmax(2), torch.ones_like(predicted)), "what has no prediction says nothing"


def test_cells_of_a_flat_patch_are_the_means_of_whole_blocks():
    """Ten slices, at 2 voxels to a cell along D, 3 along H and 4 along W."""
    output = output_of(2, [[True, False], [False, True]], (10, 9, 8))
    positions = torch.rand(2, 3, 5, 3, 2)
    fusion, data, target = torch.diag_embed(output.present), torch.zeros(2, 2, 10, 9, 8), torch.zeros(0)
    batch = Batch(data, target, fusion, torch.tensor([[0, 1]]), positions)
    means = output.logits.softmax(2).unflatten(3, (5, 2)).unflatten(5, (3, 3)).unflatten(7, (2, 4)).mean((4, 6, 8))
    each = positions[:, None].expand(-1, 2, -1, -1, -1, -1)
    expected = CACLoss("unpaired", num_modalities=2, num_classes=3)(means, output.present, each)
    assert expected > 0
    torch.testing.assert_close(CAC(SETTING)(output, batch), expected)


def test_nothing_to_compare_is_an_exact_zero_with_a_graph():
    output = output_of(2, [[True, False]] * 2)
    csc, cac = run(output, [[0, -1], [1, -1]], 1)
    assert csc == 0
    assert cac == 0
    (csc + cac).backward()
    assert not output.features.grad.any()
    assert not output.logits.grad.any()


@pytest.mark.parametrize("term", [CSC, CAC])
def test_the_bank_of_the_unpaired_form_is_the_state(term):
    assert all(name.startswith("forms.unpaired.") for name in term(SETTING).state_dict())
    assert term(SETTING).state_dict()
    assert not term(SETTING, form="printed").state_dict()


@pytest.mark.parametrize("term", [CSC, CAC])
def test_the_printed_form_is_for_registered_pairs(term):
    assert list(term(SETTING, form="printed").forms) == ["paired"]
