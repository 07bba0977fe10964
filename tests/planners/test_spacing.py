import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nnunet_cmc.planners.spacing import isotropic_spacing


@pytest.mark.parametrize(
    ("shape", "spacing", "patch_size", "coarsest", "expected", "reason"),
    [
        # extent 192 mm: half of it in 96 voxels is 1 mm
        ((64, 240, 240), (3.0, 0.8, 0.8), 96, 1.5, 1.0, "1 mm, where a cube of 96 voxels spans half of .* (192 mm)"),
        # 400 mm would need 2.08 mm
        ((80, 512, 512), (5.0, 0.7, 0.7), 96, 1.5, 1.5, "1.5 mm, as foundation encoders expect, .* only at 2.08 mm"),
        # 96 mm would allow 0.5 mm, finer than the images
        ((40, 120, 120), (2.0, 0.8, 0.8), 96, 1.5, 0.8, "0.8 mm, as fine as the images are .* at 0.5 mm"),
        # 768 mm would need 4 mm, and the images are at 3 mm already
        ((256, 100, 100), (3.0, 3.0, 3.0), 96, 1.5, 3.0, "3 mm, as fine as the images are .* only at 4 mm"),
        # the tiny cube has no limit of 1.5 mm
        ((80, 512, 512), (5.0, 0.7, 0.7), 48, None, 400 / 96, "4.17 mm, where a cube of 48 voxels spans"),
        ((40, 40, 40), (1.0, 1.0, 1.0), 48, None, 1.0, "1 mm, as fine as the images are"),
    ],
)
def test_hand_computed(shape, spacing, patch_size, coarsest, expected, reason):
    found, why = isotropic_spacing([shape], [spacing], patch_size, coarsest)
    assert found == pytest.approx(expected)
    start, *rest = reason.split(" .* ")
    assert why.startswith(start)
    assert all(part in why for part in rest)
    assert why.endswith(".")


def test_medians_over_the_images():
    shapes = [(10, 100, 100), (20, 120, 120), (300, 40, 400)]
    spacings = [(6.0, 1.0, 1.2), (5.0, 1.4, 1.3), (1.0, 0.5, 0.4)]
    # extents (60, 100, 120), (100, 168, 156), (300, 20, 160) -> median (100, 100, 156); finest 1.0, 1.3, 0.4 -> 1.0
    assert isotropic_spacing(shapes, spacings, 48, None)[0] == pytest.approx(156 / 96)
    assert isotropic_spacing(shapes, spacings, 96, 1.5)[0] == pytest.approx(1.0)


images = st.lists(
    st.tuples(st.tuples(*[st.integers(1, 800)] * 3), st.tuples(*[st.floats(0.1, 10)] * 3)), min_size=1, max_size=5
)


@given(images, st.sampled_from([48, 96]), st.sampled_from([None, 1.5]))
def test_the_formula_and_its_bounds(images, patch_size, coarsest):
    shapes, spacings = zip(*images, strict=True)
    spacing, reason = isotropic_spacing(shapes, spacings, patch_size, coarsest)
    extent = max(np.median([shape[axis] * mm[axis] for shape, mm in images]) for axis in range(3))
    finest = np.median([min(mm) for _, mm in images])
    limit = np.inf if coarsest is None else max(coarsest, finest)
    assert spacing == pytest.approx(min(max(extent / (2 * patch_size), finest), limit))
    assert finest <= spacing <= limit
    assert reason.startswith(f"{spacing:.3g} mm")
