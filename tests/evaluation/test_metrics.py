"""Metrics against pairwise distances, SimpleITK and nnU-Net, and on real label maps."""

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from scipy.spatial import KDTree

from nnunet_cmc.evaluation.metrics import METRICS, compute_metrics, surface, surface_distances


def surface_points(mask, spacing):
    """Positions in mm of the voxels with a face neighbour outside the mask, found by comparing shifted copies."""
    padded = np.pad(mask, 1)
    inside = padded.copy()
    for axis in range(mask.ndim):
        inside &= np.roll(padded, 1, axis) & np.roll(padded, -1, axis)
    return np.argwhere(padded & ~inside) * np.asarray(spacing)


def pairwise_metrics(reference, prediction, spacing, tolerance):
    a, b = surface_points(reference, spacing), surface_points(prediction, spacing)
    matrix = np.linalg.norm(a[:, None] - b[None], axis=-1)
    there, back = matrix.min(axis=1), matrix.min(axis=0)
    pooled = [*there, *back]
    hd95 = max(np.percentile(there, 95), np.percentile(back, 95))
    return {"ASSD": np.mean(pooled), "HD95": hd95, "NSD": np.mean(np.array(pooled) <= tolerance)}


def overlap(reference, prediction):
    measures = sitk.LabelOverlapMeasuresImageFilter()
    measures.Execute(*(sitk.GetImageFromArray(mask.astype(np.uint8)) for mask in (reference, prediction)))
    return measures.GetDiceCoefficient(1), measures.GetJaccardCoefficient(1)


@st.composite
def mask_pairs(draw):
    shape = draw(array_shapes(min_dims=3, max_dims=3, min_side=1, max_side=6))
    return tuple(draw(arrays(bool, shape, elements=st.booleans())) for _ in range(2))


SPACINGS = st.tuples(*[st.floats(0.3, 6)] * 3)


@given(mask_pairs(), SPACINGS, st.floats(0, 8))
@settings(max_examples=60, deadline=None)
def test_agree_with_pairwise_distances_and_simpleitk(masks, spacing, tolerance):
    reference, prediction = masks
    found = compute_metrics(reference, prediction, spacing, tolerance)
    if reference.any() and prediction.any():
        expected = pairwise_metrics(reference, prediction, spacing, tolerance)
        assert found["ASSD"] == pytest.approx(expected["ASSD"], abs=1e-9)
        assert found["HD95"] == pytest.approx(expected["HD95"], abs=1e-9)
        # a distance may lie on the tolerance to the last digit
        ends = tolerance - 1e-9, tolerance + 2e-6 * max(1, tolerance)
        near = [pairwise_metrics(reference, prediction, spacing, end)["NSD"] for end in ends]
        assert near[0] - 1e-12 <= found["NSD"] <= near[1] + 1e-12
    if reference.any() or prediction.any():
        assert (found["Dice"], found["IoU"]) == pytest.approx(overlap(reference, prediction))


@given(mask_pairs(), SPACINGS)
@settings(max_examples=30, deadline=None)
def test_symmetric_and_perfect_for_a_mask_and_itself(masks, spacing):
    a, b = masks
    forth, back = compute_metrics(a, b, spacing), compute_metrics(b, a, spacing)
    assert [forth[m] for m in METRICS] == pytest.approx([back[m] for m in METRICS], nan_ok=True)
    if a.any():
        assert [compute_metrics(a, a, spacing)[m] for m in METRICS] == [1, 1, 0, 0, 1]


def test_distances_follow_anisotropic_spacing():
    a, b = np.zeros((2, 9, 9, 9), bool)
    a[1, 4, 4] = b[3, 4, 1] = True  # 2 steps of 5 mm and 3 steps of 0.5 mm
    found = compute_metrics(a, b, (5, 1, 0.5), tolerance=10.1)
    assert found["ASSD"] == found["HD95"] == pytest.approx(np.hypot(10, 1.5))
    assert found["NSD"] == 0
    assert compute_metrics(a, b, (5, 1, 0.5), tolerance=10.2)["NSD"] == 1


def test_surface_is_what_a_six_neighbour_erosion_removes():
    cube = np.ones((5, 5, 5), bool)
    assert surface(cube).sum() == 5**3 - 3**3  # the border of the image counts as the border of the mask
    cube[0, 0, 0] = False
    assert not surface(cube)[1, 1, 1]  # touches the hole by a corner only


def test_assd_pools_both_directions_and_hd95_takes_the_larger():
    a, b = np.zeros((2, 1, 1, 40), bool)
    a[..., 0] = True
    b[..., :20] = True  # every voxel of a one-voxel-thick line is surface
    there, back = surface_distances(a, b, (1, 1, 1))
    assert (there.tolist(), back.tolist()) == ([0], list(range(20)))
    found = compute_metrics(a, b, (1, 1, 1), tolerance=4)
    assert found["ASSD"] == pytest.approx(190 / 21)
    assert found["HD95"] == pytest.approx(np.percentile(np.arange(20), 95))
    assert found["NSD"] == pytest.approx((1 + 5) / 21)


def test_empty_masks():
    empty, full = np.zeros((3, 3, 3), bool), np.ones((3, 3, 3), bool)
    assert all(np.isnan(compute_metrics(empty, empty, (1, 1, 1))[metric]) for metric in METRICS)
    for reference, prediction in ((empty, full), (full, empty)):
        found = compute_metrics(reference, prediction, (1, 1, 1))
        assert found["Dice"] == found["IoU"] == found["NSD"] == 0
        assert np.isnan(found["ASSD"])
        assert np.isnan(found["HD95"])


def test_what_is_no_pair_of_masks_spacing_or_tolerance():
    mask, spacing = np.ones((3, 3, 3), bool), (1, 1, 1)
    with pytest.raises(ValueError, match=r"The masks have the shapes \(3, 3, 3\) and \(2, 3, 3\): bring them onto one"):
        compute_metrics(mask, mask[:2], spacing)
    with pytest.raises(ValueError, match=r"The masks have the shapes \(3, 3, 3\), \(3, 3, 3\) and \(1, 3, 3\): bring"):
        compute_metrics(mask, mask, spacing, ignore=mask[:1])
    for wrong in ((1, 1), (1, 1, -1), (1, 0, 1), (1, 1, np.nan)):
        with pytest.raises(ValueError, match=r"The spacing is \(1, .*\): give 3 numbers of mm above 0"):
            compute_metrics(mask, mask, wrong)
    for wrong in (-1, np.nan, np.inf):
        with pytest.raises(ValueError, match=f"The tolerance of NSD is {wrong}: give a number of mm from 0 on"):
            compute_metrics(mask, mask, spacing, wrong)


def test_counts_are_those_of_nnunet_with_an_ignore_label():
    from nnunetv2.evaluation.evaluate_predictions import compute_tp_fp_fn_tn

    random = np.random.default_rng(0)
    reference, prediction = random.random((2, 6, 7, 8)) < 0.4
    ignore = (random.random((6, 7, 8)) < 0.2) & ~reference
    found = compute_metrics(reference, prediction, (1, 1, 1), ignore=ignore)
    tp, fp, fn, tn = compute_tp_fp_fn_tn(reference, prediction, ignore)
    assert [found[key] for key in ("TP", "FP", "FN", "TN", "n_ref", "n_pred")] == [tp, fp, fn, tn, tp + fn, tp + fp]
    assert found["Dice"] == 2 * tp / (2 * tp + fp + fn)


@pytest.mark.parametrize(
    ("file", "label"),
    [
        ("amos_labels/amos_0001_CT_gt.nii.gz", 10),  # pancreas at 0.8 x 0.8 x 5 mm
        ("amos_labels/amos_00050_MRI_gt.nii.gz", 6),  # liver at 1.2 x 1.2 x 3 mm
        ("abdomen_ct_mr/CT_label.nii.gz", 3),  # both kidneys
    ],
)
def test_real_masks_within_a_thousandth_of_a_millimetre(shared_data, file, label):
    image = sitk.ReadImage(str(shared_data / file)) == label
    spacing = image.GetSpacing()[::-1]
    reference = sitk.GetArrayFromImage(image).astype(bool)
    dilated = sitk.GetArrayFromImage(sitk.BinaryDilate(image, (3, 1, 1))).astype(bool)
    prediction = np.roll(dilated, (1, 4), axis=(0, 2)) & (np.random.default_rng(0).random(reference.shape) < 0.99)
    found = compute_metrics(reference, prediction, spacing)

    a, b = surface_points(reference, spacing), surface_points(prediction, spacing)
    there, back = KDTree(b).query(a)[0], KDTree(a).query(b)[0]
    pooled = np.concatenate([there, back])
    assert found["ASSD"] == pytest.approx(pooled.mean(), abs=1e-3)
    assert found["HD95"] == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-3)
    assert found["NSD"] == pytest.approx(np.mean(pooled <= 2), abs=1e-3)
    assert (found["Dice"], found["IoU"]) == pytest.approx(overlap(reference, prediction))
    assert 0.3 < found["Dice"] < 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int64, float])
def test_masks_of_zeros_and_ones_are_those_of_booleans(dtype):
    """``~`` of the integer 1 is not 0."""
    masks = np.zeros((3, 9, 9, 9), bool)
    masks[0, 2:7, 2:7, 2:7] = masks[1, 3:8, 2:7, 2:7] = masks[2, :3] = True
    reference, prediction, ignore = masks.astype(dtype)
    for left_out, expected in ((None, None), (ignore, masks[2])):
        found = compute_metrics(reference, prediction, (1, 1, 1), ignore=left_out)
        assert found == compute_metrics(masks[0], masks[1], (1, 1, 1), ignore=expected)
    assert all(map(np.array_equal, surface_distances(reference, prediction, (1, 1, 1)),
                   surface_distances(masks[0], masks[1], (1, 1, 1))))  # fmt: skip
