from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_cmc.losses import CACLoss

GRID = 16


def make(form, modalities=2, classes=3, **kwargs):
    sizes = {"num_modalities": modalities, "num_classes": classes} if form == "unpaired" else {}
    return CACLoss(form, **sizes, **kwargs)


def random_probabilities(seed=0, shape=(3, 2, 3, 2, 3, 4), sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(2)


def one_hot(labels, classes=3):
    """(B, M, D, H, W) -> (B, M, K, D, H, W)"""
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 2).double()


def cell_centres(rows=1, modalities=2, size=(2, 3, 4)):
    """Every voxel in a cell of its own, the same in all rows and modalities."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / GRID for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(rows, modalities, 3, *size).clone()


def call(loss, probabilities, present=None, positions=None):
    rows, modalities, _, *size = probabilities.shape
    present = torch.ones(rows, modalities, dtype=torch.bool) if present is None else present
    if loss.form != "unpaired":
        return loss(probabilities, present)
    return loss(probabilities, present, cell_centres(rows, modalities, size) if positions is None else positions)


# Independent references in numpy: plain loops over cases, classes, voxels.


def dice(p, q):
    return 2 * (p * q).sum() / ((p * p).sum() + (q * q).sum())


def case_dice(p, q):
    """p, q (K, D, H, W): over foreground classes that either puts above chance somewhere."""
    classes = [k for k in range(1, len(p)) if max(p[k].max(), q[k].max()) > 1 / len(p)]
    return np.mean([dice(p[k], q[k]) for k in classes]) if classes else 0.0


def cross_entropies(s, temperature, targets):
    e = np.exp(np.asarray(s) / temperature)
    return np.mean([-np.log(e[i, i] / e[i].sum()) / 2 - np.log(e[i, i] / e[:, i].sum()) / 2 for i in targets])


def numpy_printed(p, present):
    losses = []
    for a, b in combinations(range(p.shape[1]), 2):
        s = [case_dice(row[a], row[b]) for row, has in zip(p, present, strict=True) if has[a] and has[b]]
        if s:
            losses.append(sum(-np.log(np.exp(x) / np.sum(np.exp(s))) for x in s))
    return np.mean(losses)


def numpy_paired(p, present, temperature):
    losses = []
    for a, b in combinations(range(p.shape[1]), 2):
        rows = [row for row, has in zip(p, present, strict=True) if has[a] and has[b]]
        if rows:
            s = np.array([[case_dice(x[a], y[b]) for y in rows] for x in rows])
            losses.append(cross_entropies(s, temperature, range(len(s))) + 1 - np.mean(np.diag(s)))
    return np.mean(losses)


def numpy_occupancy(p, present, positions, m):
    """{cell: mean probability of every class} over the voxels that fall into it"""
    cells = {}
    for row in np.flatnonzero(present[:, m]):
        for voxel in np.ndindex(p.shape[3:]):
            u = positions[(row, m, slice(None), *voxel)]
            if np.all(u >= 0) and np.all(u <= 1):  # False for NaN
                cell = tuple(min(int(x * GRID), GRID - 1) for x in u)
                cells.setdefault(cell, []).append(p[(row, m, slice(None), *voxel)])
    return {cell: np.mean(values, 0) for cell, values in cells.items()}


def numpy_unpaired(occupancies, classes, temperature):
    def as_map(occupancy):
        result = np.zeros((classes, GRID, GRID, GRID))
        for cell, value in occupancy.items():
            result[(slice(None), *cell)] = value
        return result

    losses = []
    for a, b in combinations([as_map(occupancy) for occupancy in occupancies], 2):
        known = [0] + [k for k in range(1, classes) if a[k].max() > 0.01 and b[k].max() > 0.01]
        s = [[dice(a[k], b[j]) for j in known] for k in known]
        losses.append(cross_entropies(s, temperature, range(1, len(known))))
    return np.mean(losses)


PRESENT = torch.tensor([[True, True, True], [True, True, False], [False, False, True], [True, True, True]])


def probabilities_with_an_empty_class():
    """Case 0 shows class 2 in no modality, and case 3 in the first only."""
    p = random_probabilities(shape=(4, 3, 4, 2, 3, 2))
    p[0, :, 2] *= 0.01
    p[3, 1:, 2] *= 0.01
    return p / p.sum(2, keepdim=True)


def test_printed_matches_numpy():
    p = probabilities_with_an_empty_class()
    expected = numpy_printed(p.numpy(), PRESENT.numpy())
    assert CACLoss("printed")(p, PRESENT).item() == pytest.approx(expected, rel=1e-5)


def test_paired_matches_numpy():
    p = probabilities_with_an_empty_class()
    expected = numpy_paired(p.numpy(), PRESENT.numpy(), 0.2)
    assert CACLoss("paired", temperature=0.2)(p, PRESENT).item() == pytest.approx(expected, rel=1e-5)


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
    expected = numpy_unpaired([numpy_occupancy(*arrays, m) for m in range(3)], 4, 0.2)
    assert loss(p, present, positions).item() == pytest.approx(expected, rel=1e-4)

    for m in range(3):
        occupancy = numpy_occupancy(*arrays, m)
        filled = loss.occupancy.filled[m]
        assert set(map(tuple, filled[0].nonzero().tolist())) == set(occupancy)
        assert filled.eq(filled[0]).all()
        for cell, value in occupancy.items():
            assert loss.occupancy.value[(m, slice(None), *cell)].numpy() == pytest.approx(value, rel=1e-5)


def test_unpaired_takes_unvisited_cells_and_absent_modalities_from_the_bank():
    loss = make("unpaired")
    first, second = random_probabilities(0, (1, 2, 3, 2, 3, 4)), random_probabilities(1, (1, 2, 3, 2, 3, 4))
    here, shifted = cell_centres(), cell_centres() + 1 / GRID
    both, only_b = torch.tensor([[True, True]]), torch.tensor([[False, True]])
    loss(first, both, here)
    bank = [numpy_occupancy(first.numpy(), both.numpy(), here.numpy(), m) for m in range(2)]
    batch = numpy_occupancy(second.numpy(), only_b.numpy(), shifted.numpy(), 1)
    second.requires_grad_()
    value = loss(second, only_b, shifted)
    assert value.item() == pytest.approx(numpy_unpaired([bank[0], {**bank[1], **batch}], 3, 0.1), rel=1e-5)
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
    """(2, 2, 3, 1, 1, 80): every case and class is 8 voxels; partners share `voxels` of them, nobody else any."""
    labels = torch.zeros(2, 2, 1, 1, 80, dtype=torch.long)
    for case in range(2):
        for k in (1, 2):
            start = 40 * case + 20 * (k - 1)
            labels[case, 0, ..., start : start + 8] = k
            labels[case, 1, ..., start + 8 - voxels : start + 16 - voxels] = k
    return one_hot(labels)


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
    return ((cells + 0.5) / GRID)[:, None, None].expand(2, 2, 3, 1, 1, 80)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["paired", "unpaired"]), st.booleans())
def test_identical_predictions_score_below_disjoint_ones(seed, form, one_sided):
    labels = torch.randint(3, (2, 1, 3, 3, 3), generator=torch.Generator().manual_seed(seed)).expand(2, 2, 3, 3, 3)
    identical = one_hot(labels)
    disjoint = identical.clone()
    disjoint[:, 1] = disjoint[:, 1].roll(1, 1)
    assert call(make(form, one_sided=one_sided), identical) < call(make(form, one_sided=one_sided), disjoint)


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


@pytest.mark.parametrize("one_sided", [False, True])
@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_an_absent_modality_and_voxels_outside_the_body_are_never_read(form, one_sided):
    p = random_probabilities()
    present = torch.tensor([[True, True], [True, False], [True, True]])
    positions = cell_centres(3)
    positions[2, 1, 0, 1] = torch.nan
    expected = call(make(form, one_sided=one_sided), p, present, positions)
    p[1, 1] = torch.nan
    if form == "unpaired":
        p[2, 1, :, 1] = torch.nan
    p.requires_grad_()
    loss = call(make(form, one_sided=one_sided), p, present, positions)
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


@pytest.mark.parametrize("form", ["paired", "unpaired"])
def test_one_sided_teaches_the_less_certain_prediction_only(form):
    certain, vague = random_probabilities(0, (2, 1, 3, 3, 3, 3), 8.0), random_probabilities(1, (2, 1, 3, 3, 3, 3), 0.5)
    p = torch.cat([certain, vague], 1)
    learns = entropy(p[:, 1]) > entropy(p[:, 0])
    if form == "unpaired":
        learns = learns.double().mean(0).eq(1).expand(2, 3, 3, 3)  # the cell's both voxels agree on who learns
    p.requires_grad_()
    call(make(form, one_sided=True), p).backward()
    moved = p.grad[:, :, 1:].abs().sum(2) > 0  # (B, M, D, H, W)
    assert learns.float().mean() > 0.5
    assert moved[:, 1][learns].all()
    assert not moved[:, 0][learns].any()
    if form == "paired":
        assert moved[:, 0][~learns].all()
        assert not moved[:, 1][~learns].any()


def entropy(p):
    return -(p * p.log()).sum(1)


def test_one_sided_has_the_partners_of_the_symmetric_form():
    p = random_probabilities(shape=(1, 2, 3, 3, 3, 3))
    torch.testing.assert_close(call(make("paired", one_sided=True), p), call(make("paired"), p))


def test_one_sided_training_moves_the_vague_prediction_to_the_certain_one():
    labels = torch.randint(3, (2, 1, 3, 3, 3), generator=torch.Generator().manual_seed(0))
    certain = 6 * one_hot(labels)
    logits = torch.cat([certain, torch.zeros_like(certain)], 1).requires_grad_()
    optimizer = torch.optim.Adam([logits], 0.1)
    for _ in range(60):
        optimizer.zero_grad()
        call(make("paired", one_sided=True), logits.softmax(2)).backward()
        optimizer.step()
    assert (logits[:, 1].argmax(1) == labels[:, 0]).double().mean() > 0.95
    torch.testing.assert_close(logits[:, 0].softmax(1), certain[:, 0].softmax(1), atol=0.02, rtol=0)


def test_one_sided_learns_from_the_joint_prediction_where_given():
    p = random_probabilities().requires_grad_()
    joint = random_probabilities(5)[:, 0].requires_grad_()
    present = torch.ones(3, 2, dtype=torch.bool)
    loss = make("paired", one_sided=True)
    loss(p, present, joint=joint).backward()
    assert joint.grad is None
    assert p.grad.abs().max() > 0

    student = torch.where((entropy(p[:, 0]) >= entropy(p[:, 1]))[:, None], p[:, 0], p[:, 1])
    expected = numpy_paired(torch.stack([student, joint], 1).detach().numpy(), present.numpy(), 0.1)
    assert loss(p, present, joint=joint).item() == pytest.approx(expected, rel=1e-5)


ALL = torch.ones(3, 2, dtype=torch.bool)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CACLoss("dice"), "CACLoss knows the forms printed, paired, unpaired, not 'dice'."),
        (lambda: CACLoss("paired", temperature=-1), "temperature of CACLoss must be above 0, not -1"),
        (lambda: CACLoss("unpaired"), "needs num_modalities and num_classes"),
        (lambda: CACLoss("printed", one_sided=True), "has no one-sided form"),
        (lambda: make("unpaired")(random_probabilities(), ALL), "needs positions"),
        (lambda: make("paired")(random_probabilities(), ALL, cell_centres(3)), "belong to the unpaired form"),
        (lambda: make("paired")(random_probabilities(), ALL, joint=random_probabilities()[:, 0]), "one-sided paired"),
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
