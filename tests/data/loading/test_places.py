import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_cmc.data.loading.places import CELLS, overlap_of_places


class Cases:
    """Preprocessed cases whose class 1 is a cube of so many voxels at these corners of a body from voxel 10 to 90."""

    def __init__(self, corners, side=10, scale=1):
        self.identifiers = list(range(len(corners)))
        self.corners, self.side, self.scale = corners, side, scale

    def load_case(self, case):
        box = np.full((3, 2), (10, 90)) * self.scale
        if self.corners[case] is None:
            return None, None, None, {"body_box": box.tolist(), "class_locations": {1: []}}
        steps = np.stack(np.meshgrid(*[np.arange(self.side * self.scale)] * 3, indexing="ij"), -1).reshape(-1, 3)
        voxels = steps + 10 * self.scale + np.array(self.corners[case]) * self.scale
        rows = np.concatenate([np.zeros((len(voxels), 1), int), voxels], 1)
        return None, None, None, {"body_box": box.tolist(), "class_locations": {1: rows, 2: rows[:1]}}


def test_the_same_place_overlaps_wholly_and_another_one_not_at_all():
    assert overlap_of_places(Cases([(20, 20, 20)] * 3))[1] == pytest.approx(1)
    assert overlap_of_places(Cases([(0, 0, 0), (40, 40, 40)]))[1] == 0


def test_the_overlap_is_the_soft_dice_of_shares_of_cells():
    """Two cells along one axis, of which a cube fills one and the other half of each: 2 * 1/2 / (1 + 1/4 + 1/4)."""
    assert overlap_of_places(Cases([(0, 0, 0), (5, 0, 0)]))[1] == pytest.approx(1 / 1.5)
    three = overlap_of_places(Cases([(0, 0, 0), (5, 0, 0), (50, 0, 0)]))[1]
    assert three == pytest.approx(1 / 1.5 / 3), "the mean over every two cases"


def test_the_body_counts_and_not_the_spacing():
    corners = [(0, 0, 0), (5, 10, 0)]
    assert overlap_of_places(Cases(corners, scale=2))[1] == pytest.approx(overlap_of_places(Cases(corners))[1])


def test_labels_of_fewer_than_two_cases_are_left_out():
    assert overlap_of_places(Cases([(0, 0, 0), None])) == {}
    assert overlap_of_places(Cases([])) == {}


@given(st.lists(st.tuples(*[st.integers(-5, 80)] * 3), min_size=2, max_size=4))
def test_it_is_a_share_for_any_places_even_outside_of_the_box(corners):
    found = overlap_of_places(Cases(corners, side=3))
    assert set(found) == {1, 2}
    assert all(0 <= value <= 1 + 1e-9 for value in found.values())
    assert len(corners) < CELLS**3
