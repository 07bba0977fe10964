"""Our normalisation schemes against the formulas of the encoders' training, and on channels that are hardly there."""

import numpy as np
import pytest
import torch

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.preprocessing import normalization

SCHEMES = ["CTPositiveZScoreNormalization", "CTWindowNormalization", "PercentileNormalization"]
SCHEMES += ["PositiveZScoreNormalization"]


def run(name, image):
    before = image.copy()
    result = getattr(normalization, name)(False, {}).run(image, np.zeros(image.shape))
    assert result.dtype == np.float32
    assert np.array_equal(image, before), "the input stays"
    return result


@pytest.fixture
def ct():
    return np.random.default_rng(0).normal(0, 900, (8, 9, 10)).astype(np.float32)


def test_sam_med3d_on_ct(ct):
    """Clamped, then standardised as torch does it, by the voxels above 0 HU."""
    x = torch.from_numpy(ct).clamp(-1000, 1000)
    expected = (x - x[x > 0].mean()) / x[x > 0].std()
    np.testing.assert_allclose(run("CTPositiveZScoreNormalization", ct), expected, rtol=1e-5, atol=1e-5)


def test_sam_med3d_on_other_modalities(ct):
    x = torch.from_numpy(ct)
    expected = (x - x[x > 0].mean()) / x[x > 0].std()
    np.testing.assert_allclose(run("PositiveZScoreNormalization", ct), expected, rtol=1e-5, atol=1e-5)


def test_universal_on_ct():
    hu = np.array([[[-1024, -175, -100, 37.5, 60, 250, 3000]]], np.float32)
    expected = [[[0, 0, 75 / 425, 0.5, 235 / 425, 1, 1]]]
    np.testing.assert_allclose(run("CTWindowNormalization", hu), expected, rtol=1e-6)


def test_universal_on_other_modalities():
    """Background is 0, a bright artefact 1, and the body spans the range whatever its share of the image."""
    mr = np.zeros((20, 20, 20), np.float32)
    mr[5:15, 5:15, 5:15] = np.linspace(100, 1100, 1000).reshape(10, 10, 10)
    mr[10, 10, 10] = 1e5
    result = run("PercentileNormalization", mr)
    assert (result[mr == 0] == 0).all()
    assert result[10, 10, 10] == 1
    np.testing.assert_allclose(result[5:15, 5:15, 5:15].mean(), 0.5, atol=0.01)
    assert (result.min(), result.max()) == (0, 1)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("value", [0, 7, -1024])
def test_a_constant_channel_is_finite(scheme, value):
    assert np.isfinite(run(scheme, np.full((3, 4, 5), value, np.float32))).all()


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("bright", [slice(0, 2), slice(0, 30)])
@pytest.mark.parametrize("noise", [0, 1e-6])
def test_a_body_that_hardly_differs_is_normalized_with_what_is_around_it(scheme, bright, noise):
    """A mask, or two saturated voxels: their own standard deviation would blow up all others."""
    image = np.zeros(60, np.float32)
    image[bright] = 1 + noise * np.arange(60)[bright]
    result = run(scheme, image.reshape(3, 4, 5))
    assert np.abs(result).max() < 10
    if scheme != "CTWindowNormalization":
        assert np.ptp(result) > 0.9, "it still shows something"


@pytest.mark.parametrize("scheme", ["PositiveZScoreNormalization", "PercentileNormalization"])
def test_a_channel_without_positive_voxels_is_normalized_by_all(scheme, ct):
    image = -np.abs(ct)
    image[0, 0, 0] = 1
    result = run(scheme, image)
    assert np.ptp(result) > 0.9
    np.testing.assert_allclose(result, run(scheme, image + 1e4), rtol=1e-3, atol=1e-3)


def test_how_each_modality_is_normalised_in_words():
    names = {"0": "ct", "1": "MR", "2": "NCCT", "3": "CT"}
    dataset_json = {"channel_names": names, "labels": {"background": 0}, "file_ending": ".nii.gz"}
    dataset_json["cmc"] = {"version": 1, "modalities": ["CT early", "MR", "NCCT", "late"]}
    first, doubt = normalization.describe_normalization(DatasetDescription.from_dict(dataset_json)).splitlines()
    assert first == (
        "Normalisation: CT early as CT (CTNormalization), MR not as CT (ZScoreNormalization), "
        "NCCT not as CT (ZScoreNormalization), late as CT (CTNormalization)."
    )
    assert doubt.startswith("NCCT: not called CT; where the values are HU, convert with --ct NCCT, or")


INTENSITIES = {"mean": 40.0, "std": 25.0, "percentile_00_5": -60.0, "percentile_99_5": 190.0}


@pytest.mark.parametrize(
    ("scheme", "expected"),
    [("CTNormalization", (-4, 6)), ("CTWindowNormalization", (0, 1)), ("PercentileNormalization", (0, 1)),
     ("ZScoreNormalization", None), ("CTPositiveZScoreNormalization", None), ("NoNormalization", None)],
)  # fmt: skip
def test_clip_range_is_what_the_scheme_leaves_of_extreme_values(scheme, expected):
    assert normalization.clip_range(scheme, INTENSITIES) == expected
