import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nnunet_cmc.data.preprocessing.body import body_box

BODY = [[4, 21], [6, 31], [5, 28]]  # half-open


def ellipsoid(box, shape=(24, 36, 32)):
    """Bool mask of the ellipsoid that just fills ``box``."""
    centre = [(lo + hi - 1) / 2 for lo, hi in box]
    radius = [(hi - lo - 1) / 2 + 0.01 for lo, hi in box]
    axes = np.indices(shape)
    return sum(((a - c) / r) ** 2 for a, c, r in zip(axes, centre, radius, strict=True)) <= 1


@pytest.mark.parametrize("name", ["CT", "ct"])
def test_ct_body_without_the_table(name):
    image = np.full((24, 36, 32), -1000.0, np.float32)
    image[ellipsoid(BODY)] = 40
    image[ellipsoid([[8, 14], [10, 16], [8, 14]])] = -800  # lung
    image[2:22, 33:35, 2:30] = 200  # the table, apart from the body
    assert body_box(image[None], [name]).tolist() == BODY


def test_mr_body_is_the_bright_part():
    rng = np.random.default_rng(0)
    image = rng.rayleigh(5, (24, 36, 32)).astype(np.float32)
    image[ellipsoid(BODY)] += 300
    assert body_box(image[None], ["T1"]).tolist() == BODY


def test_pet_body_is_not_only_its_hottest_organs():
    rng = np.random.default_rng(0)
    image = np.abs(rng.normal(0, 0.05, (24, 36, 32))).astype(np.float32)  # SUV
    image[ellipsoid(BODY)] += 0.8
    image[ellipsoid([[15, 20], [13, 24], [12, 21]])] = 9  # brain
    image[ellipsoid([[5, 9], [16, 21], [14, 19]])] = 20  # bladder
    assert body_box(image[None], ["PET"]).tolist() == BODY
    image[0, 0, 0] = -1000  # a bad voxel
    assert body_box(image[None], ["PET"]).tolist() == BODY


def test_union_over_the_present_channels():
    image = np.zeros((3, 24, 36, 32), np.float32)
    image[0][ellipsoid([[4, 13], [6, 21], [5, 28]])] = 100
    image[2][ellipsoid([[8, 21], [10, 31], [9, 20]])] = 7
    assert body_box(image, ["T1", "T2", "FLAIR"]).tolist() == BODY


@pytest.mark.parametrize("name", ["CT", "MR"])
def test_an_image_without_a_body_is_all_body(name):
    speck = np.full((24, 36, 32), -1000.0, np.float32)
    speck[3, 4, 5] = 3000
    assert body_box(speck[None], [name]).tolist() == [[0, 24], [0, 36], [0, 32]]
    assert body_box(np.full((1, 24, 36, 32), -2000.0), [name]).tolist() == [[0, 24], [0, 36], [0, 32]]


@given(arrays(np.float32, (2, 5, 6, 7), elements=st.floats(-2000, 3000, width=32)))
@settings(max_examples=50, deadline=None)
def test_box_is_never_empty_and_never_outside(image):
    box = body_box(image, ["CT", "MR"])
    assert (box[:, 0] >= 0).all()
    assert (box[:, 1] <= image.shape[1:]).all()
    assert (box[:, 0] < box[:, 1]).all()
