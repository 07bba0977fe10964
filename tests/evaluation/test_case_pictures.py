"""Which slices are chosen, and what the pictures of a case hold: grey values, outlines, errors."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from matplotlib.path import Path as Polygon
from PIL import Image

from nnunet_cmc.evaluation import case_pictures
from nnunet_cmc.evaluation.case_pictures import (
    COUNT,
    CaseFiles,
    compress_hounsfield,
    errors,
    outline_path,
    save_case,
    window_table,
)
from nnunet_cmc.evaluation.slices import CT_WINDOWS, choose_slices, percentiles, window

CLASSES = {"liver": 1, "spleen": 2}


def polygons(path):
    """Closed polygons of a path of SVG, in pixels, whose centres are integers."""
    found = []
    for x, y, moves in re.findall(r"M(-?\d+) (-?\d+)l([-\d ]+)z", path):
        steps = np.array(moves.split(), int).reshape(-1, 2)
        points = np.cumsum(np.vstack([[int(x), int(y)], steps]), axis=0) / 2 - 0.5
        found.append(Polygon(np.vstack([points, points[:1]]), closed=True))
    return found


@settings(max_examples=50, deadline=None)
@given(arrays(bool, st.tuples(st.integers(1, 8), st.integers(1, 8))))
def test_an_outline_encloses_the_pixels_of_the_mask(mask):
    centres = np.argwhere(np.ones_like(mask))[:, ::-1]
    crossed = sum((polygon.contains_points(centres).astype(int) for polygon in polygons(outline_path(mask))), 0)
    np.testing.assert_array_equal(np.broadcast_to(crossed, mask.size) % 2, mask.ravel())  # evenodd, for holes


def test_straight_edges_are_one_segment():
    mask = np.zeros((40, 40), bool)
    mask[5:30, 5:30] = True
    assert len(outline_path(mask)) < 60
    assert outline_path(0 * mask) == ""


@settings(max_examples=50, deadline=None)
@given(arrays(np.uint8, (6, 4, 5), elements=st.integers(0, 4)), st.integers(1, 7))
def test_slices_show_every_class(labels, count):
    masks = [labels == value for value in range(1, 5)]
    planes, needed = choose_slices(masks, labels.shape, (3, 1, 1), count)
    numbers = [plane.number for plane in planes]
    assert len(set(numbers)) == len(numbers) == max(min(count, 6), needed)
    for mask in filter(np.any, masks):
        areas = mask.sum(axis=(1, 2))
        assert max(areas[numbers[:needed]]) >= areas.max() / 2
    assert needed <= max(sum(mask.any() for mask in masks), 1)


def test_organs_that_share_no_slice():
    labels = np.zeros((60, 8, 8), np.uint8)
    labels[40:55, 2:7, 2:7] = 1  # liver
    labels[5:20, 2:4, 2:4] = 2  # kidneys, below it
    planes, needed = choose_slices([labels == 1, labels == 2], labels.shape, (1, 1, 1), 4)
    assert needed == 2
    low, high = sorted(plane.number for plane in planes[:2])
    assert 5 <= low < 20
    assert 40 <= high < 55
    assert all(5 <= plane.number < 55 for plane in planes)
    assert min(np.diff(sorted(plane.number for plane in planes))) >= 10


@pytest.mark.parametrize(("place", "expected"), [(0, range(5)), (9, range(7, 12)), (18, range(15, 20))])
def test_a_small_lesion_is_shown_with_what_is_around_it(place, expected):
    lesion = np.zeros((20, 8, 8), bool)
    lesion[place : place + 2, 3, 3] = True
    planes, needed = choose_slices([lesion], lesion.shape, (1, 1, 1), 5)
    assert (planes[0].number, needed) == (place, 1)
    assert sorted(plane.number for plane in planes) == pytest.approx(list(expected), abs=1)


def test_without_a_label_slices_are_spread_from_the_middle():
    planes, needed = choose_slices([np.zeros((40, 8, 8), bool)], (40, 8, 8), (1, 1, 1), 5)
    assert (planes[0].number, needed) == (20, 1)
    assert sorted(plane.number for plane in planes) == pytest.approx([4, 12, 20, 27, 35], abs=1)


@pytest.mark.parametrize("name", CT_WINDOWS)
def test_windows_are_those_of_the_hounsfield_values(name):
    low, high = CT_WINDOWS[name]
    values = np.arange(low - 200, high + 200)
    greys = np.rint(255 * compress_hounsfield(values)).astype(int)
    expected = np.clip((values - low) / (high - low), 0, 1)
    np.testing.assert_allclose(window_table(low, high)[greys], expected, atol=0.02)
    assert len(np.unique(window_table(low, high))) > 40


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.int32, np.uint64, np.float32])
def test_grey_values_do_not_depend_on_the_type_of_the_voxels(dtype):
    """Of integers, neither the difference to a window nor that between two values may wrap around."""
    info = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.iinfo(np.int16)
    values = np.array([max(info.min, -32768), 0, 100, min(info.max, 65535)], dtype)
    exact = values.astype(np.float64)
    np.testing.assert_allclose(compress_hounsfield(values), compress_hounsfield(exact))
    np.testing.assert_allclose(window(values), window(exact))
    assert percentiles(values[[0, -1]], 0, 100) == (exact[0], exact[-1])
    assert percentiles(values[[0, -1]], 40)[0] in (exact[0], exact[-1])


def test_kinds_of_errors():
    reference = np.array([1, 1, 1, 2, 0, 0, 9])
    prediction = np.array([1, 0, 2, 2, 1, 0, 1])
    kinds = errors(reference, prediction, CLASSES)
    assert {kind: np.flatnonzero(mask).tolist() for kind, mask in kinds.items()} == {
        "false negative": [1], "false positive": [4], "wrong class": [2]
    }  # fmt: skip
    regions = errors(reference[:6], prediction[:6], {"both": (1, 2), "spleen": 2})
    assert np.flatnonzero(regions["wrong class"]).tolist() == [2]


@pytest.fixture
def files(tmp_path, write_labels):
    labels = np.zeros((20, 12, 14), np.uint8)
    labels[12:17, 2:8, 2:7] = 1
    labels[2:4, 4:9, 10:13] = 2
    wrong = labels.copy()
    wrong[8, 1:11, 1:13] = 2  # on a slice without the reference
    scan = np.where(labels > 0, 40, -1000).astype(np.int16)
    for name, volume in {"ct": scan, "mr": labels * 100.0, "label": labels, "wrong": wrong}.items():
        write_labels(tmp_path / f"{name}.nii.gz", volume)
    images = {"CT": tmp_path / "ct.nii.gz", "MR": tmp_path / "mr.nii.gz"}
    return CaseFiles("a", images, tmp_path / "label.nii.gz", {"ours": tmp_path / "wrong.nii.gz"})


def test_the_pictures_of_a_case(tmp_path, files):
    pictures = save_case(tmp_path / "out", files, CLASSES)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {
        "0.jpg", "1.jpg", "reference.svg", "outline.svg", "prediction_0.svg", "errors_0.svg"
    }  # fmt: skip
    assert (pictures.needed, pictures.ct, len(pictures.slices)) == (3, ["CT"], COUNT)
    assert pictures.size == (14, 18)  # pixels of 1 x 1.5 mm become square
    numbers = [int(re.findall(r"\d+", one.caption)[0]) - 1 for one in pictures.slices]
    assert numbers == sorted(numbers, reverse=True)  # head first
    first = {number for number, one in zip(numbers, pictures.slices, strict=True) if one.rank < 3}
    assert 8 in first
    assert first & {2, 3}
    assert first & {12, 13, 14, 15, 16}

    grey = np.asarray(Image.open(tmp_path / "out" / pictures.scans["CT"]))
    assert grey.shape == (18, 14 * COUNT)
    place = next(i for i, number in enumerate(numbers) if 12 <= number < 17)
    middle = grey[6, 14 * place + 4]  # within the liver
    assert window_table(*CT_WINDOWS["soft tissue"])[middle] == pytest.approx(0.5, abs=0.03)
    label = (tmp_path / "out" / "reference.svg").read_text()
    assert f'width="{14 * COUNT}" height="18" viewBox="0 0 {28 * COUNT} 24"' in label
    assert label.count("<path ") == 2
    assert "#ffee00" in (tmp_path / "out" / "errors_0.svg").read_text()


@pytest.mark.parametrize(
    ("low", "high", "named", "is_ct"),
    [(-1000, 40, [], True), (-200, 250, [], False), (-200, 250, ["CT"], True), (0, 1, ["CT"], False)],
)
def test_what_is_ct(tmp_path, write_labels, low, high, named, is_ct):
    """By its values or by the name in the dataset, but not what was scaled to 0 to 1."""
    scan = np.full((4, 24, 24), low, np.int16)
    scan[:, 12:] = high
    write_labels(tmp_path / "scan.nii.gz", scan)
    files = CaseFiles("a", {"CT": tmp_path / "scan.nii.gz"}, None, {})
    assert save_case(tmp_path / "out", files, CLASSES, named).ct == ["CT"] * is_ct
    grey = np.asarray(Image.open(tmp_path / "out" / "0.jpg"))[-6, 12] / 255
    assert grey == pytest.approx(compress_hounsfield(np.array(high)) if is_ct else 1, abs=0.03)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_a_ct_of_an_unsigned_type(tmp_path, write_labels, dtype):
    scan = np.full((4, 24, 24), 40, dtype)
    scan[:, 12:] = 200
    write_labels(tmp_path / "scan.nii.gz", scan)
    files = CaseFiles("a", {"CT": tmp_path / "scan.nii.gz"}, None, {})
    assert save_case(tmp_path / "out", files, CLASSES, ["CT"]).ct == ["CT"]
    grey = np.asarray(Image.open(tmp_path / "out" / "0.jpg"))[-6, 12] / 255
    assert grey == pytest.approx(compress_hounsfield(np.array(200.0)), abs=0.03)


def test_a_case_without_a_label(tmp_path, files):
    pictures = save_case(tmp_path / "out", CaseFiles("u", files.images, None, {}), CLASSES)
    assert (pictures.reference, pictures.outline, pictures.needed) == ("", "", 1)
    assert {file.name for file in (tmp_path / "out").iterdir()} == {"0.jpg", "1.jpg"}


def test_pictures_are_no_larger_than_a_jpeg_can_be(tmp_path, files, monkeypatch):
    monkeypatch.setattr(case_pictures, "JPEG_SIDE", 100)
    save_case(tmp_path / "out", files, CLASSES)
    sizes = [Image.open(file).size for file in (tmp_path / "out").rglob("*.jpg")]
    assert sizes
    assert all(max(size) == 100 for size in sizes)
