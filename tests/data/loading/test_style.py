"""Scans in the style of another modality, and the rows that show them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pair_loaders import CT_ONLY, REGISTERED, UNPAIRED, loader

from nnunet_cmc.data.format.preprocessed import ALMOST_ZERO
from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.fusion import Alone
from nnunet_cmc.data.loading.style import SwapStyles, restyled

SIDES = st.tuples(*[st.integers(4, 11)] * 3)


def scans(shape, seed: int, count: int = 2) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *shape, generator=generator) - 0.3


@settings(max_examples=40, deadline=None)
@given(SIDES, st.floats(0, 0.45), st.integers(0, 99))
def test_low_amplitudes_are_the_styles_and_phases_the_scans(shape, band, seed):
    """As in FDA, a window about the centre of the shifted spectrum; but the mean, which may be negative, is style."""
    scan, style = scans(shape, seed)
    spectra = [np.fft.fftshift(np.fft.fftn(x.double().numpy())) for x in (scan, style)]
    centre = [side // 2 for side in shape]
    reach = [int(np.floor(band * side + 1e-6)) for side in shape]
    low = tuple(slice(c - r, c + r + 1) for c, r in zip(centre, reach, strict=True))
    amplitude, phase = np.abs(spectra[0]), np.angle(spectra[0])
    amplitude[low] = np.abs(spectra[1])[low]
    phase[tuple(centre)] = np.angle(spectra[1])[tuple(centre)]
    expected = np.fft.ifftn(np.fft.ifftshift(amplitude * np.exp(1j * phase)))
    assert np.abs(expected.imag).max() < 1e-9
    found = restyled(scan, style, band)
    np.testing.assert_allclose(found, expected.real, atol=1e-4)
    assert float(found.mean()) == pytest.approx(float(style.mean()), abs=1e-5)


@pytest.mark.parametrize("background", [0.0, ALMOST_ZERO])
def test_its_own_style_changes_nothing_and_background_stays(background):
    scan, style = scans((9, 8, 7), 1)
    torch.testing.assert_close(restyled(scan, scan, 0.2), scan)
    scan[:4] = background
    found = restyled(scan, style, 0.2)
    assert (found[:4] == background).all()
    assert (found[4:] != 0).all()
    assert not restyled(torch.zeros(9, 8, 7), style, 0.2).any()


def test_a_silhouette_is_no_style():
    """Flat tissue gets the intensity of the style's tissue, however much background lies about either."""
    scan, style = torch.full((2, 12, 12, 12), ALMOST_ZERO)
    scan[:5, 2:9] = 5
    style[3:, :, 6:] = -2
    expected = torch.where(scan == 5, -2.0, ALMOST_ZERO)
    torch.testing.assert_close(restyled(scan, style, 0.2), expected, rtol=0, atol=1e-4)


def batch_of(present: np.ndarray, labeled: int, seed: int) -> Batch:
    """Rows of random scans, whose labels and names are their numbers; each row is its own pair."""
    rows, modalities = present.shape
    there = torch.from_numpy(present)
    data = scans((4, 4, 4), seed, rows * modalities).unflatten(0, (rows, modalities)) * there[..., None, None, None]
    labels = torch.arange(rows, dtype=torch.int16)[:, None, None, None, None].expand(-1, 1, 4, 4, 4)
    return Batch(
        data, labels[:labeled], torch.stack([Alone()(tuple(np.flatnonzero(row)), modalities) for row in present]),
        torch.where(there, torch.arange(rows)[:, None], -1), torch.rand(rows, 3, 1, 1, 1),
        keys=[f"case{row}" for row in range(rows)], pseudo_targets=labels[labeled:],
    )  # fmt: skip


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 4), st.integers(1, 5), st.data())
def test_every_scan_is_shown_once_in_the_style_of_another_modality(modalities, rows, data):
    flags = st.lists(st.booleans(), min_size=modalities, max_size=modalities).filter(any)
    present = np.array(data.draw(st.lists(flags, min_size=rows, max_size=rows)))
    labeled = data.draw(st.integers(1, rows))
    batch = batch_of(present, labeled, seed=rows)
    np.random.seed(data.draw(st.integers(0, 99)))
    found = SwapStyles(0.3)(batch)
    if present.any(0).sum() < 2:
        assert found.data.equal(batch.data)
        assert found.swaps.shape == (0, 2, modalities)
        return
    number = {key: row for row, key in enumerate(batch.keys)}
    of = [number[key] for key in found.keys]  # the row that each one is, or is a copy of
    assert found.target[:, 0, 0, 0, 0].tolist() == of[: len(found.target)]
    assert found.pseudo_targets[:, 0, 0, 0, 0].tolist() == of[len(found.target) :]
    assert all((row < labeled) == (i < len(found.target)) for i, row in enumerate(of))
    assert len(found.data) == len(found.fusion) == len(found.positions) == 2 * rows

    copies = set()
    for swap in found.swaps:
        assert (swap >= 0).sum(1).tolist() == [1, 1]
        (scan, copy), (m, other) = swap.amax(1).tolist(), swap.argmax(1).tolist()
        assert m != other
        assert of[scan] == of[copy]
        assert found.data[scan].equal(batch.data[of[scan]])
        assert found.pairs[of[scan]].max() == scan
        styles = batch.data[:, other][torch.from_numpy(present[:, other])]
        assert any(found.data[copy, other].equal(restyled(found.data[scan, m], style, 0.3)) for style in styles)
        assert found.positions[copy].isnan().all()
        copies.add((copy, other))
    assert len(copies) == len(found.swaps) == present.sum()
    shown = torch.zeros_like(found.predicted)
    shown[tuple(zip(*copies, strict=True))] = True
    assert found.predicted.equal(shown | found.scans)
    assert not (shown & found.scans).any()
    assert (found.data != 0).flatten(2).any(2).equal(found.predicted)
    assert found.fusion.sum() == found.predicted.sum(), "each is predicted by itself"


def test_what_lies_outside_of_a_scan_is_neither_restyled_nor_a_style():
    batch = batch_of(np.array([[True, False], [False, True], [False, True]]), 1, seed=0)
    batch.data[1] = 0
    found = SwapStyles(0.3)(batch)
    assert len(found.data) == 5
    assert found.keys == ["case0", "case0", "case1", "case2", "case2"]
    assert found.data[1, 1].equal(restyled(batch.data[0, 0], batch.data[2, 1], 0.3))


@pytest.mark.parametrize("present", [REGISTERED, UNPAIRED])
def test_a_loader_adds_at_most_as_many_rows_as_there_are(tmp_path, present):
    arguments = {"seed": 3, "unlabeled": (), "augment": True, "fusion": Alone()}
    plain = loader(tmp_path, present, **arguments).generate_train_batch()
    swapped = loader(tmp_path, present, views=(SwapStyles(),), **arguments).generate_train_batch()
    rows = len(plain["data"])
    assert swapped["data"][:rows].equal(plain["data"])
    assert swapped["data"].dtype == torch.float32
    assert len(swapped["data"]) == 2 * rows
    again = loader(tmp_path, present, views=(SwapStyles(),), **arguments).generate_train_batch()
    assert again["data"].equal(swapped["data"])


def test_a_batch_of_one_modality_has_nothing_to_swap(tmp_path):
    batch = Batch(**loader(tmp_path, CT_ONLY, views=(SwapStyles(),), unlabeled=("ct3",)).generate_train_batch())
    assert batch.swaps.shape == (0, 2, 2)
    assert batch.scans.equal(batch.predicted)
