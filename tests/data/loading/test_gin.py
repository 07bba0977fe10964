"""Contrast randomisation: what it keeps, what it changes, and what it computes."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from scipy.stats import spearmanr

from nnunet_cmc.data.loading.gin import CHANNELS, Contrasts, RandomNetworks, convolve, draw_networks, randomize_contrast

sides = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**31)


def drawn(n, seed=0):
    return draw_networks(n, torch.Generator().manual_seed(seed))


def scans(n=3, shape=(12, 10, 14)):
    """Zero in one corner, and the last one everywhere."""
    x = torch.randn(n, *shape)
    x[:, :3, :4] = 0
    x[-1] = 0
    return x


def in_numpy(x, networks, i):
    """The i-th network by scipy, on voxels that are zero beyond the border of ``x``, whatever layers look at them."""
    margin = sum(weight.shape[-1] // 2 for weight in networks.weights)
    layer = [np.pad(x.double().numpy(), 2 * margin)]
    for j, (weight, shift) in enumerate(zip(networks.weights, networks.shifts, strict=True)):
        layer = [
            sum(correlate(f, kernel, mode="constant") for f, kernel in zip(layer, kernels, strict=True)) + b
            for kernels, b in zip(weight[i].double().numpy(), shift[i].double().numpy(), strict=True)
        ]
        if j < len(networks.weights) - 1:
            layer = [np.where(f > 0, f, 0.01 * f) for f in layer]
    inner = tuple(slice(2 * margin, 2 * margin + side) for side in x.shape)
    return layer[0][inner]


@settings(max_examples=40, deadline=None)
@given(sides, st.integers(1, 3), seeds)
def test_convolutions_equal_those_of_scipy(shape, n, seed):
    torch.manual_seed(seed)
    x, networks = torch.randn(n, *shape), drawn(n, seed)
    result = convolve(x, networks)
    assert result.shape == x.shape
    for i in range(n):
        expected = in_numpy(x[i], networks, i)
        np.testing.assert_allclose(result[i], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@settings(max_examples=30, deadline=None)
@given(sides, seeds)
def test_the_result_is_the_blend_with_zeros_and_norm_of_the_image(shape, seed):
    torch.manual_seed(seed)
    x, networks = torch.randn(2, *shape) * (torch.rand(2, *shape) < 0.8), drawn(2, seed)
    for i, (result, share) in enumerate(zip(randomize_contrast(x, networks), networks.blends.double(), strict=True)):
        blend = float(share) * in_numpy(x[i], networks, i) + float(1 - share) * x[i].double().numpy()
        blend[x[i].numpy() == 0] = 0
        expected = blend * np.linalg.norm(x[i]) / max(np.linalg.norm(blend), 1e-30)
        np.testing.assert_allclose(result, expected, rtol=1e-3, atol=1e-4 * float(x.abs().max()))


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_norm_zeros_and_absent_channels_are_kept(seed):
    torch.manual_seed(seed)
    x = scans()
    before = x.clone()
    result = randomize_contrast(x, drawn(3, seed))
    assert x.equal(before)
    assert result.dtype == torch.float32
    assert result.shape == x.shape
    torch.testing.assert_close(result.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert not result[x == 0].any()
    assert result[:2][x[:2] != 0].isfinite().all()


def test_it_is_another_contrast_each_time_and_in_each_scan():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 8, 8).expand(2, -1, -1, -1)
    results = [scan for seed in range(10) for scan in randomize_contrast(x, drawn(2, seed))]
    scale = x[0].norm()
    apart = [(a - b).norm() / scale for i, a in enumerate(results) for b in [x[0], *results[:i]]]
    assert min(apart) > 0.01
    assert np.median(apart) > 0.5


def test_a_scan_is_changed_by_its_own_network_alone():
    torch.manual_seed(0)
    x, networks = scans(), drawn(3, 5)
    other = x.clone()
    other[1] = torch.randn_like(x[1])
    one, two = randomize_contrast(x, networks), randomize_contrast(other, networks)
    torch.testing.assert_close(two[0], one[0], rtol=0, atol=0)
    assert not two[1].equal(one[1])


def test_a_seed_decides_the_contrasts_of_the_scans_that_are_named():
    x = torch.randn(2, 3, 6, 6, 6)
    contrasts = Contrasts(7, [0, 1, 1], [2, 0, 1], [None] * 3)
    results = []
    for _ in range(2):
        results.append(contrasts.show(x))
        torch.rand(5)
    assert results[0].equal(results[1])
    assert not Contrasts(8, [0, 1, 1], [2, 0, 1], [None] * 3).show(x).equal(results[0])
    changed = (results[0] != x).flatten(2).any(2)
    assert changed.tolist() == [[False, False, True], [True, True, False]]
    torch.testing.assert_close(results[0][1, 0], randomize_contrast(x[[0, 1, 1], [2, 0, 1]], drawn(3, 7))[1])
    assert Contrasts(7, [], [], []).show(x).equal(x)


def test_no_gradient_is_kept():
    assert not randomize_contrast(scans().requires_grad_(), drawn(3)).requires_grad


@pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, 1e6])
def test_constant_scans_stay_finite(value):
    x = torch.full((2, 5, 6, 7), value)
    for seed in range(20):
        result = randomize_contrast(x, drawn(2, seed))
        assert result.isfinite().all()
        torch.testing.assert_close(result.norm(), x.norm(), rtol=1e-5, atol=0)


def test_positive_kernels_of_one_voxel_are_a_monotone_map():
    torch.manual_seed(0)
    weights = [torch.rand(1, after, before, 1, 1, 1) for before, after in pairwise(CHANNELS)]
    shifts = [torch.randn(1, weight.shape[1]) for weight in weights]
    x = torch.randn(1, 6, 6, 6)
    result = randomize_contrast(x, RandomNetworks(weights, shifts, torch.tensor([0.7])))
    assert spearmanr(x.flatten(), result.flatten()).statistic == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(x.flatten(), result.flatten())[0, 1] < 1 - 1e-6, "and not a linear one"


def test_what_is_drawn_has_the_published_distribution():
    batches = [drawn(3, seed) for seed in range(500)]
    kernels = [[weight.shape[-1] for weight in networks.weights] for networks in batches]
    np.testing.assert_allclose(np.equal(kernels, 3).mean(0), 0.5, atol=0.1)
    assert {size for row in kernels for size in row} == {1, 3}
    assert [weight.shape[:3] for weight in batches[0].weights] == [(3, 2, 1), (3, 2, 2), (3, 2, 2), (3, 1, 2)]
    for name in ("weights", "shifts"):
        values = torch.cat([part.flatten() for networks in batches for part in getattr(networks, name)])
        assert abs(values.mean()) < 0.05
        assert abs(values.std() - 1) < 0.05
    assert np.histogram(torch.cat([networks.blends for networks in batches]), 4, (0, 1))[0].min() > 300


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_clipped_scan_stays_in_its_range_and_its_zeros_zero(seed):
    torch.manual_seed(seed)
    x, networks = scans(), drawn(3, seed)
    free = randomize_contrast(x, networks)
    clipped = randomize_contrast(x, networks, [(0.1, 0.9), None, (-1, 1)])
    there = x[0] != 0
    assert clipped[0][there].equal(free[0][there].clamp(0.1, 0.9))
    assert not clipped[x == 0].any()
    assert clipped[1].equal(free[1])
