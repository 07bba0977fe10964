import numpy as np
import pytest

from nnunet_cmc.data.loading.laterality import sided_classes


class Cases:
    """Preprocessed cases whose class 1 has its centre at the given share of a body from voxel 10 to 110."""

    def __init__(self, *shares, empty=0):
        self.properties = [self._properties(share) for share in shares] + [self._properties(None)] * empty
        self.identifiers = list(range(len(self.properties)))

    @staticmethod
    def _properties(share):
        voxels = [] if share is None else np.array([[0, 3, 4, 9.5 + 100 * share + step] for step in (-5, 5)])
        return {"body_box": [[0, 1], [0, 1], [10, 110]], "class_locations": {1: voxels}}

    def load_case(self, case):
        return None, None, None, self.properties[case]


@pytest.mark.parametrize(
    ("cases", "sided"),
    [
        (Cases(0.3, 0.35, 0.2), True),
        (Cases(0.7, 0.9, 0.6), True),
        (Cases(0.3, 0.35, 0.7), False),
        (Cases(0.5, 0.5, 0.5), False),
        (Cases(0.3, 0.3, 0.47), False),  # one is in the middle
        (Cases(0.3, 0.7), True),  # too few to tell
        (Cases(0.3, 0.3, 0.7, empty=2), False),
    ],
)
def test_same_side_in_every_case(cases, sided):
    assert sided_classes(cases) == [1] * sided


def test_left_to_right_may_be_another_axis_of_the_plans():
    cases = Cases(0.3, 0.35, 0.2)
    for properties in cases.properties:
        properties["body_box"] = properties["body_box"][::-1]
        properties["class_locations"] = {1: properties["class_locations"][1][:, [0, 3, 1, 2]]}
    assert sided_classes(cases, 0) == [1]
