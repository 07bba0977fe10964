import numpy as np
import pytest
import torch
from cac_inputs import call, cell_centres, make, one_hot, random_probabilities
from hypothesis import given, settings
from hypothesis import strategies as st
from references import GRID, cac_occupancy, cac_paired, cac_printed, cac_unpaired, case_dice, cross_entropies

from nnunet_cmc.losses import CACLoss

PRESENT = torch.tensor([[True, True, True], [True, True, False], [False, False, True], [True, True, True]])


def probabilities_with_an_empty_class(shape=(2, 3, 2)):
    """Case 0 shows class 2 in no modality, and case 3 in the first only."""
    p = random_probabilities(shape=(4, 3, 4, *shape))
    p[0, :, 2] *= 0.01
    p[3, 1:, 2] *= 0.01
    return p / p.sum(2, keepdim=True)


def test_printed_matches_numpy():
    p = probabilities_with_an_empty_class()
    expected = cac_printed(p.numpy(), PRESENT.numpy())
    assert CACLoss("printed")(p, PRESENT).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(2, 3, 2), (32, 3, 48)])
def test_paired_matches_numpy(shape):
    """Cases are compared with others over cells of at most 16 along an axis, and with themselves over voxels."""
    p = probabilities_with_an_empty_class(shape)
    expected = cac_paired(p.numpy(), PRESENT.numpy(), 0.2)
    assert CACLoss("paired", temperature=0.2)(p, PRESENT).item() == pytest.approx(expected, rel=1e-5)


def test_paired_without_the_dice_is_the_cross_entropy_alone():
    p = random_probabilities(shape=(4, 3, 4, 2, 3, 2))
    s = np.array([[[case_dice(x[a], y[b]) for y in p.numpy()] for x in p.numpy()] for a, b in ((0, 1), (0, 2), (1, 2))])
    expected = np.mean([cross_entropies(each, 0.5) for each in s])
    found = CACLoss("paired", temperature=0.5, dice=False)(p, torch.ones(4, 3, dtype=torch.bool))
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_unpaired_matches_numpy_with_rows_of_one_modality():
    p = random_probabilities(shape=(4, 3, 4, 2, 3, 2))
    p[:, 1, 3] = 1e-4  # a class that one modality lacks
    present = torch.tensor([[True, False, False], [False, True, False], [False, False, True], [True, False, True]])
    positions = 0.4 * torch.rand(4, 3, 3, 2, 3, 2, dtype=torch.float64) + 0.6  # several voxels a cell
    positions[0, 0, 0, 0] = -0.01
    positions[3, 0, 2, 1] = torch.nan
    positions[3, 2, 1, :, 1] = 1.01
    positions[2, 2, :, 0, 0, 0] = 1.0  # the last voxel of the body
    arrays = p.numpy(), present.numpy(), positions.numpy()
    loss = make("unpaired", 3, 4, temperature=0.2)
    expected = cac_unpaired([cac_occupancy(*arrays, m) for m in range(3)], 4, 0.2)
    assert loss(p, present, positions).item() == pytest.approx(expected, rel=1e-4)

    for m in range(3):
        occupancy = cac_occupancy(*arrays, m)
        filled = loss.occupancy.filled[m]
        assert set(map(tuple, filled[0].nonzero().tolist())) == set(occupancy)
        assert filled.eq(filled[0]).all()
        for cell, value in occupancy.items():
            assert loss.occupancy.value[(m, slice(None), *cell)].numpy() == pytest.approx(value, rel=1e-5)


def test_unpaired_compares_classes_that_fill_more_than_a_hundredth_of_a_cell():
    p = random_probabilities(shape=(1, 2, 4, 2, 3, 2))
    p[:, :, 2], p[:, :, 3] = 0.009, 0.011
    loss = make("unpaired", 2, 4)
    found, positions = call(loss, p).item(), cell_centres(1, 2, (2, 3, 2)).numpy()
    occupancies = [cac_occupancy(p.numpy(), np.ones((1, 2), bool), positions, m) for m in range(2)]
    assert found == pytest.approx(cac_unpaired(occupancies, 4, 0.1), rel=1e-4)


def test_unpaired_takes_unvisited_cells_and_absent_modalities_from_the_bank():
    loss = make("unpaired")
    first, second = random_probabilities(0, (1, 2, 3, 2, 3, 4)), random_probabilities(1, (1, 2, 3, 2, 3, 4))
    here, shifted = cell_centres(), cell_centres() + 1 / GRID
    both, only_b = torch.tensor([[True, True]]), torch.tensor([[False, True]])
    loss(first, both, here)
    bank = [cac_occupancy(first.numpy(), both.numpy(), here.numpy(), m) for m in range(2)]
    batch = cac_occupancy(second.numpy(), only_b.numpy(), shifted.numpy(), 1)
    second.requires_grad_()
    value = loss(second, only_b, shifted)
    assert value.item() == pytest.approx(cac_unpaired([bank[0], {**bank[1], **batch}], 3, 0.1), rel=1e-5)
    value.backward()
    assert second.grad[:, 1].abs().max() > 0
    assert second.grad[:, 0].abs().max() == 0

    cell = next(cell for cell in batch if cell in bank[1])  # seen twice: the moving average
    expected = 0.99 * bank[1][cell] + 0.01 * batch[cell]
    assert loss.occupancy.value[(1, slice(None), *cell)].numpy() == pytest.approx(expected, rel=1e-5)


def test_unpaired_is_0_where_nothing_is_present_whatever_the_bank_holds():
    loss = make("unpaired")
    call(loss, random_probabilities())
    assert call(loss, random_probabilities(), torch.zeros(3, 2, dtype=torch.bool)).item() == 0


def test_bank_follows_in_training_only():
    loss = make("unpaired")
    call(loss.eval(), random_probabilities())
    assert not loss.occupancy.filled.any()
    call(loss.train(), random_probabilities())
    assert loss.occupancy.filled.sum() == 2 * 3 * (2 * 3 * 4)


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_gradcheck(form):
    logits = torch.randn(2, 2, 3, 2, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    loss = make(form).eval()
    assert torch.autograd.gradcheck(lambda x: call(loss, x.softmax(2)), logits.requires_grad_())


def overlapping(voxels):
    """(2, 2, 3, 1, 5, 16): every case and class is 8 voxels; partners share `voxels` of them, nobody else any."""
    labels = torch.zeros(2, 2, 1, 1, 80, dtype=torch.long)
    for case in range(2):
        for k in (1, 2):
            start = 40 * case + 20 * (k - 1)
            labels[case, 0, ..., start : start + 8] = k
            labels[case, 1, ..., start + 8 - voxels : start + 16 - voxels] = k
    return one_hot(labels.unflatten(-1, (5, GRID)).flatten(2, 3))


@settings(deadline=None, max_examples=20)
@given(st.sampled_from([(i, j) for i in range(9) for j in range(i + 1, 9)]))
def test_raising_partners_lowers_the_loss_and_leaves_printed_unchanged(overlap):
    low, high = (overlapping(voxels) for voxels in overlap)
    for form in ("paired", "unpaired"):
        assert call(make(form), high, positions=positions_of_80()) < call(make(form), low, positions=positions_of_80())
    paired = make("paired")
    call(paired, high)
    assert paired.similarity.diagonal.item() == pytest.approx(overlap[1] / 8, abs=1e-5)
    assert paired.similarity.off_diagonal == 0
    printed = make("printed")
    assert call(printed, high).item() == pytest.approx(call(printed, low).item(), abs=1e-6)
    assert call(printed, low).item() == pytest.approx(2 * np.log(2), abs=1e-6)


def positions_of_80():
    index = torch.arange(80, dtype=torch.float64)
    cells = torch.stack([torch.zeros(80), index // GRID, index % GRID])
    return ((cells + 0.5) / GRID).unflatten(1, (1, 5, GRID)).expand(2, 2, 3, 1, 5, GRID)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["paired", "unpaired"]))
def test_identical_predictions_score_below_disjoint_ones(seed, form):
    labels = torch.randint(3, (2, 1, 3, 3, 3), generator=torch.Generator().manual_seed(seed)).expand(2, 2, 3, 3, 3)
    identical = one_hot(labels)
    disjoint = identical.clone()
    disjoint[:, 1] = disjoint[:, 1].roll(1, 1)
    assert call(make(form), identical) < call(make(form), disjoint)


def test_paired_works_with_a_batch_of_one_where_printed_is_0():
    p = random_probabilities(shape=(1, 2, 3, 2, 3, 4)).requires_grad_()
    paired = make("paired")
    loss = call(paired, p)
    assert loss.item() == pytest.approx(1 - case_dice(*p[0].detach().numpy()), rel=1e-5)
    loss.backward()
    assert p.grad[:, :, 1:].abs().amax((0, 2, 3, 4, 5)).gt(1e-4).all()
    assert paired.similarity.off_diagonal.isnan()
    assert call(make("printed"), p).item() == 0


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["printed", "paired", "unpaired"]))
def test_order_of_cases_classes_and_modalities_does_not_matter(seed, form):
    p = random_probabilities(seed)
    order = torch.randperm(3, generator=torch.Generator().manual_seed(seed))
    positions = torch.rand(3, 2, 3, 2, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    expected = call(make(form), p, positions=positions)
    permuted = call(make(form), p[order][:, :, [0, 2, 1]].flip(1), positions=positions[order].flip(1))
    torch.testing.assert_close(permuted, expected)


def test_a_single_foreground_class_trains_too():
    p = random_probabilities(shape=(1, 2, 2, 3, 3, 3)).requires_grad_()
    for form in ("paired", "unpaired"):
        p.grad = None
        call(make(form, classes=2), p).backward()
        assert p.grad.abs().amax((0, 2, 3, 4, 5)).gt(1e-4).all()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
@pytest.mark.parametrize("label", [0, 1])
def test_finite_with_empty_classes_constant_predictions_and_a_batch_of_one(form, label):
    p = one_hot(torch.full((1, 2, 3, 3, 3), label)).float().requires_grad_()
    loss = call(make(form), p)
    loss.backward()
    assert loss.isfinite()
    assert p.grad.isfinite().all()


def test_cases_without_foreground_are_left_out_of_paired():
    p = random_probabilities()
    empty = torch.cat([p, one_hot(torch.zeros(2, 2, 2, 3, 4, dtype=torch.long))])
    assert call(make("paired"), empty).item() == pytest.approx(call(make("paired"), p).item(), rel=1e-12)


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
@pytest.mark.parametrize("rows", [0, 2])
def test_exactly_0_with_a_graph_where_no_pair_is_present(form, rows):
    p = torch.full((rows, 2, 3, 3, 3, 3), torch.nan, requires_grad=True)
    present = torch.tensor([[False, False]] * rows, dtype=torch.bool).reshape(rows, 2)
    loss = make(form)
    value = call(loss, p, present)
    value.backward()
    assert value.item() == 0
    assert p.grad.eq(0).all()
    assert loss.similarity.diagonal.isnan()


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_an_absent_modality_and_voxels_outside_the_body_are_never_read(form):
    p = random_probabilities()
    present = torch.tensor([[True, True], [True, False], [True, True]])
    positions = cell_centres(3)
    positions[2, 1, 0, 1] = torch.nan
    expected = call(make(form), p, present, positions)
    p[1, 1] = torch.nan
    if form == "unpaired":
        p[2, 1, :, 1] = torch.nan
    p.requires_grad_()
    loss = call(make(form), p, present, positions)
    assert loss.equal(expected)
    loss.backward()
    assert p.grad.isfinite().all()
    assert p.grad[1, 1].eq(0).all()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_gradient_reaches_all_of_three_modalities(form):
    p = random_probabilities(shape=(2, 3, 3, 2, 3, 4)).requires_grad_()
    call(make(form, modalities=3), p).backward()
    assert p.grad.abs().amax((0, 2, 3, 4, 5)).gt(1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_autocast_computes_in_float32(form, dtype):
    p = random_probabilities().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(make(form), p)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, call(make(form), p.float()))


ALL = torch.ones(3, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CACLoss("dice"), "CACLoss has the forms printed, paired, unpaired, not 'dice'."),
        (lambda: CACLoss("paired", temperature=-1), "temperature of CACLoss must be above 0, not -1"),
        (lambda: CACLoss("unpaired"), "needs num_modalities and num_classes"),
        (lambda: make("unpaired")(random_probabilities(), ALL), "needs positions"),
        (lambda: make("paired")(random_probabilities(), ALL, cell_centres(3)), "belong to the unpaired form"),
        (lambda: make("paired")(random_probabilities()[:, 0], ALL), r"not \(3, 3, 2, 3, 4\) with \(3, 2\)"),
        (
            lambda: make("unpaired", classes=4)(random_probabilities(), ALL, cell_centres(3)),
            r"built for M=2, K=4 and got probabilities \(3, 2, 3, 2, 3, 4\) with positions",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
