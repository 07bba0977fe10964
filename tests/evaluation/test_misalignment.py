"""Where a spot ends up, in the patient's coordinates, on an oblique grid of anisotropic voxels."""

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.evaluation.misalignment import misalign, random_direction

SHAPE = (40, 48, 56)  # z, y, x
TURN = np.deg2rad(30)
DIRECTION = (np.cos(TURN), -np.sin(TURN), 0, np.sin(TURN), np.cos(TURN), 0, 0, 0, 1)
BACKGROUND = -1000


def scan_with_spot(offset_mm):
    """A scan of ``BACKGROUND`` with a soft spot ``offset_mm`` (x, y, z) from its centre; and where that is."""
    image = sitk.Image(SHAPE[::-1], sitk.sitkFloat32)
    image.SetSpacing((1.0, 1.2, 2.0))
    image.SetOrigin((30.0, -20.0, 7.0))
    image.SetDirection(DIRECTION)
    centre = np.array(image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in SHAPE[::-1]]))
    points = positions(image)
    distance = np.linalg.norm(points - (centre + offset_mm), axis=-1)
    spot = sitk.GetImageFromArray((BACKGROUND + 1000 * np.exp(-((distance / 5) ** 2))).astype(np.float32))
    spot.CopyInformation(image)
    return spot, centre


def positions(image):
    """Physical position of every voxel, ``(D, H, W, 3)``."""
    z, y, x = np.indices(image.GetSize()[::-1])
    index = np.stack([x, y, z], -1) * image.GetSpacing()
    return index @ np.reshape(image.GetDirection(), (3, 3)).T + image.GetOrigin()


def spot_position(image):
    weight = sitk.GetArrayFromImage(image) - BACKGROUND
    return np.tensordot(weight, positions(image), 3) / weight.sum()


@pytest.mark.parametrize("direction", [(1, 0, 0), (0, 0, -1), (0.6, 0.64, -0.48)])
def test_content_moves_that_far_in_that_direction(direction):
    scan, centre = scan_with_spot((2, -3, 4))
    moved = misalign(scan, np.array(direction, float), millimetres=7.5)
    np.testing.assert_allclose(spot_position(moved) - centre, (2, -3, 4) + 7.5 * np.array(direction), atol=0.1)


@pytest.mark.parametrize(
    ("axis", "start", "end"),
    [((0, 0, 1), (10, 0, 3), (0, 10, 3)), ((1, 0, 0), (5, 8, 0), (5, 0, 8)), ((0, -1, 0), (9, 1, 0), (0, 1, 9))],
)
def test_content_turns_right_handed_about_the_centre(axis, start, end):
    scan, centre = scan_with_spot(start)
    turned = misalign(scan, np.array(axis, float), degrees=90)
    np.testing.assert_allclose(spot_position(turned) - centre, end, atol=0.1)


def test_the_grid_stays_and_outside_is_the_lowest_value():
    scan, _ = scan_with_spot((0, 0, 0))
    moved = misalign(scan, np.array((0.0, 0.0, 1.0)), millimetres=10)
    for get in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection", "GetPixelID"):
        assert getattr(moved, get)() == getattr(scan, get)()
    assert (sitk.GetArrayFromImage(moved)[:5] == sitk.GetArrayFromImage(scan).min()).all()
    still = misalign(scan, np.array((0.0, 0.0, 1.0)))
    np.testing.assert_allclose(sitk.GetArrayFromImage(still), sitk.GetArrayFromImage(scan), atol=1e-3)


def test_directions_are_unit_vectors_all_over_the_sphere():
    directions = np.array([random_direction(0, i) for i in range(400)])
    np.testing.assert_allclose(np.linalg.norm(directions, axis=1), 1)
    np.testing.assert_allclose(directions.mean(0), 0, atol=0.1)
    np.testing.assert_allclose(directions.T @ directions / 400, np.eye(3) / 3, atol=0.07)
    np.testing.assert_array_equal(random_direction(0, 5), directions[5])
