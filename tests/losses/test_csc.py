import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from references import csc_paired, csc_printed, csc_prototypes, csc_unpaired
from torch.autograd.graph import saved_tensors_hooks

from nnunet_cmc.losses import CSCLoss

ALL = torch.ones(3, 2, dtype=torch.bool)
SIZES = {"num_modalities": 2, "num_classes": 3, "num_channels": 4}


def make(form, **kwargs):
    return CSCLoss(form, **kwargs, **(SIZES if form == "unpaired" else {}))


def random_features(seed=0, shape=(3, 2, 4, 3, 3, 3)):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def random_weights(seed=1, shape=(3, 2, 3, 3, 3, 3)):
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def call(loss, features, present=None, weights=None):
    present = torch.ones(features.shape[:2], dtype=torch.bool) if present is None else present
    if loss.form != "unpaired":
        return loss(features, present)
    weights = random_weights(shape=(*features.shape[:2], 3, *features.shape[3:])) if weights is None else weights
    return loss(features, present, weights)


PRESENT = torch.tensor([[True, True, True], [True, False, True], [False, False, True], [False, True, True]])


def test_printed_matches_numpy():
    features = random_features(shape=(4, 3, 4, 2, 3, 2))
    loss = CSCLoss("printed")(features, PRESENT)
    assert loss.item() == pytest.approx(csc_printed(features.numpy(), PRESENT.numpy()), rel=1e-5)


def test_paired_matches_numpy():
    features = random_features(shape=(4, 3, 4, 2, 3, 2))
    loss = CSCLoss("paired", temperature=0.2)
    expected = csc_paired(features.numpy(), PRESENT.numpy(), 0.2)
    assert loss(features, PRESENT).item() == pytest.approx(expected, rel=1e-5)


def test_paired_compares_at_most_8_voxels_an_axis():
    coarse = random_features(shape=(1, 2, 4, 8, 4, 8))
    fine = coarse.repeat_interleave(2, 3).repeat_interleave(2, 5)  # 16 x 4 x 16
    noise = random_features(1, (1, 2, 4, 8, 4, 16)).repeat_interleave(2, 3)
    noise[:, :, :, 1::2] *= -1  # cancels within every pooled voxel
    loss = CSCLoss("paired")
    present = torch.ones(1, 2, dtype=torch.bool)
    torch.testing.assert_close(loss(fine + noise, present), loss(coarse, present))


def test_unpaired_matches_numpy_with_rows_of_one_modality():
    features = random_features(shape=(4, 3, 4, 2, 3, 2))
    weights = random_weights(shape=(4, 3, 5, 2, 3, 2))
    weights[:, 1, 2] = 0  # a class that one modality lacks
    present = torch.tensor([[True, False, False], [False, True, False], [False, False, True], [True, False, True]])
    loss = CSCLoss("unpaired", temperature=0.2, num_modalities=3, num_classes=5, num_channels=4)
    expected = csc_unpaired(csc_prototypes(features.numpy(), present.numpy(), weights.numpy()), 0.2)
    assert loss(features, present, weights).item() == pytest.approx(expected, rel=1e-5)


def test_unpaired_takes_absent_classes_and_modalities_from_the_bank():
    loss = make("unpaired")
    one = [torch.tensor([[True, False]]), torch.tensor([[False, True]])]
    weights = random_weights(shape=(1, 2, 3, 3, 3, 3))
    first, second = random_features(0, (1, 2, 4, 3, 3, 3)), random_features(1, (1, 2, 4, 3, 3, 3)).requires_grad_()

    assert loss(first, one[0], weights).item() == 0  # the other modality was never seen
    weights[:, 1, 1] = 0  # class 1 is in modality 0 (bank) only
    value = loss(second, one[1], weights)
    bank = csc_prototypes(first.numpy(), np.array([[True, False]]), weights.numpy())[0]
    batch = csc_prototypes(second.detach().numpy(), np.array([[False, True]]), weights.numpy())[1]
    assert value.item() == pytest.approx(csc_unpaired({0: bank, 1: batch}, 0.1), rel=1e-5)
    value.backward()
    assert second.grad[:, 1].abs().max() > 0
    assert second.grad[:, 0].abs().max() == 0


def test_unpaired_skips_pairs_with_one_common_class():
    features, weights = random_features(shape=(1, 3, 4, 3, 3, 3)), random_weights(shape=(1, 3, 3, 3, 3, 3))
    weights[:, 2, 1:] = 0
    loss = CSCLoss("unpaired", **{**SIZES, "num_modalities": 3})
    first_two = CSCLoss("unpaired", **SIZES)
    torch.testing.assert_close(
        call(loss, features, weights=weights), call(first_two, features[:, :2], weights=weights[:, :2])
    )


def test_unpaired_has_a_graph_even_where_the_batch_shows_no_class():
    loss = make("unpaired")
    call(loss, random_features())
    features = random_features().requires_grad_()
    value = call(loss, features, weights=torch.zeros(3, 2, 3, 3, 3, 3))
    value.backward()
    assert value > 0  # the bank's classes differ
    assert features.grad.eq(0).all()


def test_unpaired_is_0_where_nothing_is_present_whatever_the_bank_holds():
    loss = make("unpaired")
    call(loss, random_features())
    assert call(loss, random_features(), torch.zeros(3, 2, dtype=torch.bool)).item() == 0


def test_class_weights_are_constant():
    features, weights = random_features().requires_grad_(), random_weights().requires_grad_()
    call(make("unpaired"), features, weights=weights).backward()
    assert weights.grad is None
    assert features.grad.abs().max() > 0


def test_bank_follows_in_training_only():
    loss = make("unpaired")
    call(loss.eval(), random_features())
    assert not loss.prototypes.filled.any()
    call(loss.train(), random_features())
    assert loss.prototypes.filled.all()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_gradcheck(form):
    features = random_features(shape=(2, 2, 3, 2, 2, 2)).requires_grad_()
    weights = random_weights(shape=(2, 2, 3, 2, 2, 2))
    loss = CSCLoss(form, num_modalities=2, num_classes=3, num_channels=3) if form == "unpaired" else CSCLoss(form)
    assert torch.autograd.gradcheck(lambda x: call(loss.eval(), x, weights=weights), features)


def features_with_cosines(s):
    """(1, 2, C, 1, 1, 2 C + 1): zero-mean channels whose cosine matrix is s, all rows of s within the unit ball."""
    n = len(s)
    spanning = torch.cat([torch.ones(2 * n + 1, 1), torch.eye(2 * n + 1)[:, : 2 * n]], 1).double()
    basis = torch.linalg.qr(spanning)[0].T[1:]
    a, rest = basis[:n], basis[n : 2 * n]
    b = s.T @ a + (1 - s.square().sum(0)).sqrt()[:, None] * rest
    return torch.stack([a, b])[None, :, :, None, None]


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(-0.2, 0.2), min_size=9, max_size=9), st.floats(0.05, 0.5))
def test_raising_partners_lowers_the_loss_and_leaves_printed_unchanged(entries, rise):
    low = torch.tensor(entries, dtype=torch.float64).reshape(3, 3)
    low, high = (features_with_cosines(s) for s in (low, low + rise * torch.eye(3)))
    paired, printed, present = CSCLoss("paired"), CSCLoss("printed"), torch.ones(1, 2, dtype=torch.bool)
    value = paired(low, present)
    off_diagonal = paired.similarity.off_diagonal
    assert paired(high, present) < value
    assert paired.similarity.off_diagonal == pytest.approx(off_diagonal.item(), abs=1e-5)
    assert printed(high, present).item() == pytest.approx(printed(low, present).item(), abs=1e-5)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["printed", "paired", "unpaired"]))
def test_order_of_cases_channels_and_modalities_does_not_matter(seed, form):
    features, weights = random_features(seed), random_weights(seed)
    generator = torch.Generator().manual_seed(seed)
    cases, channels = torch.randperm(3, generator=generator), torch.randperm(4, generator=generator)
    expected = call(make(form), features, weights=weights)
    permuted = call(make(form), features[cases][:, :, channels].flip(1), weights=weights[cases].flip(1))
    torch.testing.assert_close(permuted, expected)


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000), st.sampled_from(["paired", "unpaired"]))
def test_aligned_modalities_score_below_shuffled_channels(seed, form):
    features, weights = random_features(seed), random_weights(seed)
    features[:, 1], weights[:, 1] = features[:, 0], weights[:, 0]
    shuffled = features.clone()
    if form == "paired":
        shuffled[:, 1] = shuffled[:, 1].roll(1, 1)
    shuffled_weights = weights.clone()
    shuffled_weights[:, 1] = weights[:, 1].roll(1, 1)
    aligned = call(make(form), features, weights=weights)
    assert aligned < call(make(form), shuffled, weights=shuffled_weights)


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
@pytest.mark.parametrize("constant", [0.0, 100.0])
def test_finite_with_constant_features_and_a_batch_of_one(form, constant):
    features = torch.full((1, 2, 4, 3, 3, 3), constant, requires_grad=True)
    loss = call(make(form), features)
    loss.backward()
    assert loss.isfinite()
    assert features.grad.isfinite().all()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
@pytest.mark.parametrize("rows", [0, 2])
def test_exactly_0_with_a_graph_where_no_pair_is_present(form, rows):
    features = torch.full((rows, 2, 4, 3, 3, 3), torch.nan, requires_grad=True)
    present = torch.tensor([[True, False]] * rows).reshape(rows, 2)
    loss = make(form)
    value = call(loss, features, present)
    value.backward()
    assert value.item() == 0
    assert features.grad.eq(0).all()
    assert loss.similarity.diagonal.isnan()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_an_absent_modality_is_never_read(form):
    features = random_features()
    present = torch.tensor([[True, True], [True, False], [True, True]])
    expected = call(make(form), features, present)
    features[1, 1] = torch.nan
    features.requires_grad_()
    loss = call(make(form), features, present)
    assert loss.equal(expected)
    loss.backward()
    assert features.grad.isfinite().all()
    assert features.grad[1, 1].eq(0).all()


@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_gradient_reaches_all_of_three_modalities(form):
    features = random_features(shape=(2, 3, 4, 3, 3, 3)).requires_grad_()
    sizes = {**SIZES, "num_modalities": 3} if form == "unpaired" else {}
    call(CSCLoss(form, **sizes), features).backward()
    assert features.grad.abs().amax((0, 2, 3, 4, 5)).gt(1e-6).all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("form", ["printed", "paired", "unpaired"])
def test_autocast_computes_in_float32(form, dtype):
    features = random_features().to(dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = call(make(form), features)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, call(make(form), features.float()))


@pytest.mark.parametrize("form", ["printed", "paired"])
def test_memory_is_that_of_the_channels_and_of_their_pairs(form):
    """No tensor for every pair of channels and every voxel."""
    kept = []
    cases, channels, voxels = 2, 16, 9**3
    features = torch.randn(cases, 2, channels, 9, 9, 9, requires_grad=True)
    with saved_tensors_hooks(lambda tensor: kept.append(tensor.numel()) or tensor, lambda tensor: tensor):
        CSCLoss(form)(features, torch.ones(cases, 2, dtype=torch.bool))
    assert max(kept) <= cases * max(channels * voxels, channels**2)


def test_similarity_is_what_was_compared():
    s = torch.tensor([[0.6, 0.1, 0.0], [0.0, 0.3, 0.0], [-0.3, 0.0, 0.3]], dtype=torch.float64)
    loss = CSCLoss("paired")
    value = loss(features_with_cosines(s).requires_grad_(), torch.ones(1, 2, dtype=torch.bool))
    assert value.requires_grad
    assert not loss.similarity.diagonal.requires_grad
    assert loss.similarity.diagonal.item() == pytest.approx(0.4, abs=1e-5)
    assert loss.similarity.off_diagonal.item() == pytest.approx(-0.2 / 6, abs=1e-5)


@pytest.mark.parametrize(("form", "aligns"), [("paired", True), ("printed", False)])
def test_toy_run_only_paired_finds_the_partner_channels(form, aligns):
    """Two linear encoders of the same 8 sources, mixed differently: does each channel meet its own partner?"""
    generator = torch.Generator().manual_seed(0)
    channels = 8
    mixing = torch.randn(2, channels, channels, generator=generator)
    encoders = torch.randn(2, channels, channels, generator=generator).requires_grad_()
    optimizer = torch.optim.Adam([encoders], 0.02)
    loss, present = CSCLoss(form), torch.ones(2, 2, dtype=torch.bool)

    def features():
        sources = torch.randn(2, channels, 4**3, generator=generator)
        return torch.einsum("mck,mks,bsv->bmcv", encoders, mixing, sources).unflatten(3, (4, 4, 4))

    for _ in range(250):
        optimizer.zero_grad()
        loss(features(), present).backward()
        optimizer.step()

    paired = CSCLoss("paired")
    with torch.no_grad():
        test = features()
        a, b = (x.flatten(1) - x.flatten(1).mean(1, keepdim=True) for x in test[0])
        found = (torch.corrcoef(torch.cat([a, b]))[:channels, channels:].argmax(1) == torch.arange(channels)).sum()
        paired(test, present)
    if aligns:
        assert found == channels
        assert paired.similarity.diagonal > 0.8
    else:
        assert found < channels / 2
        assert paired.similarity.diagonal < 0.3


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: CSCLoss("cosine"), "CSCLoss has the forms printed, paired, unpaired, not 'cosine'."),
        (lambda: CSCLoss("paired", temperature=0), "temperature of CSCLoss must be above 0, not 0"),
        (lambda: CSCLoss("unpaired"), "needs num_modalities, num_classes and num_channels"),
        (lambda: make("unpaired")(random_features(), ALL), "needs class_weights"),
        (lambda: make("paired")(random_features(), ALL, random_weights()), "belong to the unpaired form"),
        (lambda: make("paired")(random_features(), ALL[:2]), r"not \(3, 2, 4, 3, 3, 3\) with \(2, 2\)"),
        (
            lambda: make("unpaired")(random_features(), ALL, random_weights(shape=(3, 2, 4, 3, 3, 3))),
            r"built for M=2, K=3, C=4 and got features .* with class_weights \(3, 2, 4, 3, 3, 3\)",
        ),
    ],
)
def test_errors(build, message):
    with pytest.raises(ValueError, match=message):
        build()
