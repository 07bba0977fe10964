"""Contrast randomisation: what it keeps, what it changes, and what it computes."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import correlate
from scipy.stats import spearmanr

from nnunet_cmc.data.loading import gin
from nnunet_cmc.data.loading.gin import GINTransform, RandomNetwork, convolve, draw_network

sides = st.tuples(*[st.integers(1, 9)] * 3)
seeds = st.integers(0, 2**31)


def scan(shape=(12, 10, 14), channels=2):
    """Zero in one corner, and in the last channel everywhere."""
    x = torch.randn(channels, *shape)
    x[:, :3, :4] = 0
    x[-1] = 0
    return x


def in_numpy(x, network):
    """The network by scipy, on voxels that are zero beyond the border of ``x``, however many layers look at them."""
    margin = sum(weight.shape[-1] // 2 for weight in network.weights)
    layer = [np.pad(x.double().numpy(), 2 * margin)]
    for i, (weight, shift) in enumerate(zip(network.weights, network.shifts, strict=True)):
        layer = [
            sum(correlate(f, kernel, mode="constant") for f, kernel in zip(layer, kernels, strict=True)) + b
            for kernels, b in zip(weight.double().numpy(), shift.double().numpy(), strict=True)
        ]
        if i < len(network.weights) - 1:
            layer = [np.where(f > 0, f, 0.01 * f) for f in layer]
    inner = tuple(slice(2 * margin, 2 * margin + side) for side in x.shape)
    return layer[0][inner]


@settings(max_examples=40, deadline=None)
@given(sides, seeds)
def test_convolutions_equal_those_of_scipy(shape, seed):
    torch.manual_seed(seed)
    x, network = torch.randn(shape), draw_network()
    expected = in_numpy(x, network)
    result = convolve(x, network.weights, network.shifts)
    assert result.shape == x.shape
    np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_without_onednn_it_is_the_same(monkeypatch):
    torch.manual_seed(3)
    x, networks = torch.randn(6, 9, 8), [draw_network() for _ in range(8)]
    results = [convolve(x, network.weights, network.shifts) for network in networks]
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    for network, result in zip(networks, results, strict=True):
        other = convolve(x, network.weights, network.shifts)
        torch.testing.assert_close(other, result, rtol=1e-4, atol=float(1e-5 * result.abs().max()))


@settings(max_examples=30, deadline=None)
@given(sides, seeds)
def test_the_result_is_the_blend_with_zeros_and_norm_of_the_image(shape, seed):
    torch.manual_seed(seed)
    x = torch.randn(1, *shape) * (torch.rand(1, *shape) < 0.8)
    network = draw_network()
    with patch.object(gin, "draw_network", lambda: network):
        result = GINTransform()(image=x)["image"]
    blend = network.blend * in_numpy(x[0], network) + (1 - network.blend) * x[0].double().numpy()
    blend[x[0].numpy() == 0] = 0
    expected = blend * np.linalg.norm(x) / max(np.linalg.norm(blend), 1e-30)
    np.testing.assert_allclose(result[0], expected, rtol=1e-3, atol=1e-4 * float(x.abs().max()))


@settings(max_examples=30, deadline=None)
@given(seeds)
def test_norm_zeros_and_absent_channels_are_kept(seed):
    torch.manual_seed(seed)
    x = scan(channels=3)
    before = x.clone()
    result = GINTransform()(image=x)["image"]
    assert x.equal(before)
    assert result.dtype == torch.float32
    assert result.shape == x.shape
    torch.testing.assert_close(result.flatten(1).norm(dim=1), x.flatten(1).norm(dim=1), rtol=1e-5, atol=0)
    assert not result[x == 0].any()
    assert result[:2][x[:2] != 0].isfinite().all()


def test_it_is_another_contrast_each_time_and_in_each_channel():
    torch.manual_seed(0)
    x = torch.randn(1, 8, 8, 8).expand(2, -1, -1, -1).contiguous()
    results = [channel for _ in range(10) for channel in GINTransform()(image=x)["image"]]
    scale = x[0].norm()
    apart = [(a - b).norm() / scale for i, a in enumerate(results) for b in [x[0], *results[:i]]]
    assert min(apart) > 0.01
    assert np.median(apart) > 0.5


def test_a_seed_decides_it_whatever_was_drawn_before():
    x = scan()
    results = []
    for _ in range(2):
        torch.manual_seed(7)
        results.append(GINTransform()(image=x)["image"])
        torch.rand(5)
    assert results[0].equal(results[1])
    assert not GINTransform()(image=x)["image"].equal(results[0])


def test_no_gradient_is_kept():
    result = GINTransform()(image=scan().requires_grad_())["image"]
    assert not result.requires_grad


@pytest.mark.parametrize("value", [1.0, -3.0, 1e-6, 1e6])
def test_constant_channels_stay_finite(value):
    torch.manual_seed(0)
    for _ in range(20):
        result = GINTransform()(image=torch.full((2, 5, 6, 7), value))["image"]
        assert result.isfinite().all()
        torch.testing.assert_close(result.norm(), torch.full((2, 5, 6, 7), value).norm(), rtol=1e-5, atol=0)


def test_positive_kernels_of_one_voxel_are_a_monotone_map():
    torch.manual_seed(0)
    drawn = [torch.rand(after, before, 1, 1, 1) for before, after in zip(gin.CHANNELS, gin.CHANNELS[1:], strict=False)]
    network = RandomNetwork(drawn, [torch.randn(len(weight)) for weight in drawn], 0.7)
    x = torch.randn(1, 6, 6, 6)
    with patch.object(gin, "draw_network", lambda: network):
        result = GINTransform()(image=x)["image"]
    assert spearmanr(x.flatten(), result.flatten()).statistic == pytest.approx(1, abs=1e-6)
    assert np.corrcoef(x.flatten(), result.flatten())[0, 1] < 1 - 1e-6, "and not a linear one"


def test_what_is_drawn_has_the_published_distribution():
    torch.manual_seed(0)
    networks = [draw_network() for _ in range(500)]
    kernels = [[weight.shape[-1] for weight in network.weights] for network in networks]
    np.testing.assert_allclose(np.equal(kernels, 3).mean(0), 0.5, atol=0.1)
    assert {size for row in kernels for size in row} == {1, 3}
    assert [weight.shape[:2] for weight in networks[0].weights] == [(2, 1), (2, 2), (2, 2), (1, 2)]
    for name in ("weights", "shifts"):
        values = torch.cat([part.flatten() for network in networks for part in getattr(network, name)])
        assert abs(values.mean()) < 0.05
        assert abs(values.std() - 1) < 0.05
    assert np.histogram([network.blend for network in networks], 4, (0, 1))[0].min() > 90


@settings(max_examples=20, deadline=None)
@given(seeds)
def test_a_clipped_channel_stays_in_its_range_and_its_zeros_zero(seed):
    torch.manual_seed(seed)
    x = scan(channels=3)
    state = torch.get_rng_state()
    free = GINTransform()(image=x)["image"]
    torch.set_rng_state(state)
    clipped = GINTransform(clip=((0.1, 0.9), None, (-1, 1)))(image=x)["image"]
    there = x[0] != 0
    assert clipped[0][there].equal(free[0][there].clamp(0.1, 0.9))
    assert not clipped[x == 0].any()
    assert clipped[1].equal(free[1])


def test_ranges_of_another_number_of_channels_are_refused():
    with pytest.raises(ValueError, match="has 1 ranges to clip to, and the image 2 channels"):
        GINTransform(clip=((0, 1),))(image=scan())
