"""Labels that are resampled where they change against nnU-Net's own resampling of every voxel, to the bit."""

from unittest.mock import patch

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.ndimage import gaussian_filter

from nnunet_cmc.data.loading.label_resampling import resample_labels

PATCH = {3: (12, 10, 14), 2: (16, 12)}
STOCK = {"border_mode_seg": "constant", "padding_value_seg": -1}  # as nnU-Net's trainer sets them
KINDS = {
    "crop": {},
    "rotation": {"p_rotation": 1, "rotation": (-0.5, 0.5)},
    "scaling": {"p_scaling": 1, "scaling": (0.7, 1.4)},
    "rotation and scaling": {"p_rotation": 1, "p_scaling": 1, "rotation": (-3, 3)},
    "elastic": {"p_elastic_deform": 1},
    "ties between voxels": {"p_scaling": 1, "scaling": 0.5},
    "mostly outside": {"p_scaling": 1, "scaling": 4.0},
}
OPTIONS = {
    "as nnU-Net's trainer": STOCK,
    "zeros outside": {"border_mode_seg": "zeros"},
    "continued outside": {"border_mode_seg": "border"},
    "reflected outside": {"border_mode_seg": "reflection"},
    "a stack of scores": {**STOCK, "bg_style_seg_sampling": True},
    "ties to the lowest": {**STOCK, "seg_tiebreak": "lowest"},
    "ties to the highest": {**STOCK, "seg_tiebreak": "highest"},
    "nearest": {**STOCK, "mode_seg": "nearest"},
    "corners aligned": {**STOCK, "align_corners": True},
}


def drawn(spatial: SpatialTransform, labels: torch.Tensor, seed: int) -> dict:
    np.random.seed(seed)
    torch.manual_seed(seed)
    return spatial.get_parameters(image=labels.float())


def organs(read, count: int, seed: int, channels: int = 1) -> torch.Tensor:
    """Labels 0 to ``count`` in smooth regions, and -1 along a border."""
    rng = np.random.default_rng(seed)
    scores = [[gaussian_filter(rng.normal(size=read), 3) for _ in range(count + 1)] for _ in range(channels)]
    labels = np.argmax(scores, axis=1).astype(np.int16)
    labels[:, :3] = -1
    return torch.from_numpy(labels)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("axes", [2, 3])
def test_labels_are_those_of_nnunet(axes, kind, options):
    read = (22, 24, 20)[:axes]
    spatial = SpatialTransform(PATCH[axes], 0, False, **KINDS[kind], **options)
    for seed in range(6):
        labels = organs(read, 1 + seed % 4, seed, channels=1 if axes == 3 else 5)
        params = drawn(spatial, labels, seed)
        expected = spatial._apply_to_segmentation(labels, **params)
        found = resample_labels(spatial, labels, params)
        assert found.dtype == expected.dtype
        assert found.equal(expected)


@given(
    labels=arrays(
        np.int16,
        st.tuples(st.integers(1, 3), *[st.integers(1, 9)] * 3),
        elements=st.sampled_from([-32768, -1, 0, 1, 7, 300, 32767]),
    ),
    scaling=st.sampled_from([0.25, 0.5, 0.8, 1.0, 3.0]),
    angle=st.sampled_from([0, 0.3, np.pi / 2]),
    padding=st.sampled_from([-1, 0, 7]),
)
def test_noise_small_scans_and_any_label_are_as_nnunet_resamples_them(labels, scaling, angle, padding):
    """Also what is one voxel thin, of one label alone, or padded with a label of its own."""
    augmentation = {"p_rotation": 1, "rotation": angle, "p_scaling": 1, "scaling": scaling}
    spatial = SpatialTransform(
        (5, 6, 4), 0, False, **augmentation, border_mode_seg="constant", padding_value_seg=padding
    )
    given_labels = torch.from_numpy(labels)
    params = drawn(spatial, given_labels, 0)
    expected = spatial._apply_to_segmentation(given_labels.clone(), **params)
    assert resample_labels(spatial, given_labels, params).equal(expected)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64])
def test_labels_of_other_types(dtype):
    labels = organs((22, 24, 20), 3, 0).clip(min=0).to(dtype)
    labels[labels == 3] = 200 if dtype == torch.uint8 else 40_000_001
    spatial = SpatialTransform(PATCH[3], 0, False, p_rotation=1, rotation=(0.1, 0.3), border_mode_seg="border")
    params = drawn(spatial, labels, 0)
    assert resample_labels(spatial, labels, params).equal(spatial._apply_to_segmentation(labels, **params))


def test_nnunet_resamples_only_points_between_unlike_neighbours():
    read = (40, 40, 40)
    labels = torch.zeros(1, *read, dtype=torch.int16)
    labels[:, 20:] = 1
    spatial = SpatialTransform((32, 32, 32), 0, False, p_rotation=1, rotation=(0.1, 0.3), **STOCK)
    params = drawn(spatial, labels, 0)
    with patch.object(SpatialTransform, "_apply_to_segmentation") as resampled:
        resampled.side_effect = lambda labels, grid, **_: torch.zeros(1, *grid.shape[:-1], dtype=labels.dtype)
        resample_labels(spatial, labels, params)
    points = resampled.call_args.kwargs["grid"].numel() // 3
    assert 32 * 32 <= points <= 3 * 32 * 32, "a plane of about 32 x 32 points, of 32 x 32 x 32"


def test_a_scan_of_one_label_is_left_alone():
    labels = torch.full((1, 20, 20, 20), 3, dtype=torch.int16)
    spatial = SpatialTransform((8, 8, 8), 0, False, p_rotation=1, rotation=(0.1, 0.3), **STOCK)
    with patch.object(SpatialTransform, "_apply_to_segmentation") as resampled:
        assert (resample_labels(spatial, labels, drawn(spatial, labels, 0)) == 3).all()
    resampled.assert_not_called()
