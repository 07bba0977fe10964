import pytest

from nnunet_cmc.data.grid import Grid, read_grid

UPRIGHT = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
GRID = Grid((10, 20, 30), (1.0, 1.0, 2.0), (5.0, 6.0, 7.0), UPRIGHT)


def test_corners_are_in_millimetres():
    corners = GRID.corners()
    assert corners.min(axis=0).tolist() == [5, 6, 7]
    assert corners.max(axis=0).tolist() == [14, 25, 65]


@pytest.mark.parametrize("origin", [(5.0, 6.0, 7.0), (5.05, 6.0, 7.0), (5.0, 6.0, 6.95)])
def test_a_twentieth_of_a_voxel_is_one_grid(origin):
    assert GRID.differences(GRID._replace(origin=origin)) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"size": (10, 20, 31)}, "size (10, 20, 30) instead of (10, 20, 31)"),
        ({"spacing": (1.0, 1.0, 2.1)}, "spacing (1.0, 1.0, 2.0) instead of (1.0, 1.0, 2.1)"),
        ({"origin": (5.5, 6.0, 7.0)}, "origin (5.0, 6.0, 7.0) instead of (5.5, 6.0, 7.0)"),
        ({"direction": (-1.0, *UPRIGHT[1:])}, "direction (1.0, "),
    ],
)
def test_differences_are_named_with_both_values(change, text):
    (difference,) = GRID.differences(GRID._replace(**change))
    assert difference.startswith(text)


def test_read_grid_reads_back_what_was_written(tmp_path, write_volume):
    write_volume(tmp_path / "a.nii.gz", [[[1, 2, 3]] * 2] * 4, (1.0, 1.5, 3.0), (1.0, 2.0, -3.0))
    grid = read_grid(tmp_path / "a.nii.gz")
    assert grid.size == (3, 2, 4)
    assert grid.spacing == pytest.approx((1.0, 1.5, 3.0))
    assert grid.origin == pytest.approx((1.0, 2.0, -3.0))


def test_read_grid_refuses_what_is_not_a_volume(tmp_path, write_volume):
    (tmp_path / "text.nii.gz").write_text("not an image")
    with pytest.raises(ValueError, match="cannot be read"):
        read_grid(tmp_path / "text.nii.gz")
    write_volume(tmp_path / "flat.mha", [[1, 2], [3, 4]], (1.0, 1.0), (0.0, 0.0), (1, 0, 0, 1))
    with pytest.raises(ValueError, match=r"has 2 dimensions \(2 x 2\)"):
        read_grid(tmp_path / "flat.mha")
