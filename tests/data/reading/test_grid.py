import nibabel
import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_cmc.data.reading.grid import Grid, read_grid

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


def test_a_difference_that_three_digits_do_not_show():
    small = GRID._replace(spacing=(0.001, 0.001, 0.001))
    assert small.differences(small._replace(origin=(5.0002, 6.0, 7.0))) == [
        "origin (5.0, 6.0, 7.0) instead of (5.0002, 6.0, 7.0)"
    ]


def with_shear(code, qform):
    image = nibabel.Nifti1Image(np.zeros((4, 5, 6), np.uint8), np.eye(4))
    image.set_sform([[1, 0, 0.3, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]], code)
    image.set_qform(np.eye(4) if qform else None, int(qform))
    return image


@pytest.mark.parametrize("code", [1, 2])
@pytest.mark.parametrize("qform", [False, True])
def test_a_sheared_transform_is_refused_though_itk_would_take_the_qform(tmp_path, code, qform):
    nibabel.save(with_shear(code, qform), tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"not at right angles \(1, 0, 0\.3, 0, .*resample it onto an orthogonal grid"):
        read_grid(tmp_path / "a.nii.gz")


def test_a_shear_that_leads_to_a_template_is_none_of_the_scanner(tmp_path):
    nibabel.save(with_shear(4, qform=True), tmp_path / "a.nii.gz")
    assert read_grid(tmp_path / "a.nii.gz").size == (4, 5, 6)


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
def test_nifti_2_is_named(tmp_path, name):
    nibabel.save(nibabel.Nifti2Image(np.zeros((4, 5, 6), np.uint8), np.eye(4)), tmp_path / name)
    with pytest.raises(ValueError, match="is NIfTI-2, which ITK does not read: write it as NIfTI-1"):
        read_grid(tmp_path / name)


def test_a_name_that_does_not_say_whether_the_file_is_compressed(tmp_path, write_volume):
    write_volume(tmp_path / "a.nii", np.zeros((4, 5, 6)))
    write_volume(tmp_path / "b.nii.gz", np.zeros((4, 5, 6)))
    (tmp_path / "a.nii").rename(tmp_path / "a.nii.gz")
    (tmp_path / "b.nii.gz").rename(tmp_path / "b.nii")
    with pytest.raises(ValueError, match=r"is not compressed, though its name ends in \.gz: compress it with gzip"):
        read_grid(tmp_path / "a.nii.gz")
    with pytest.raises(ValueError, match=r"is compressed, though its name does not end in \.gz: name it \.nii\.gz"):
        read_grid(tmp_path / "b.nii")


def test_read_grid_refuses_what_is_not_a_volume(tmp_path, write_volume):
    (tmp_path / "text.nii.gz").write_text("not an image")
    with pytest.raises(ValueError, match="cannot be read"):
        read_grid(tmp_path / "text.nii.gz")
    write_volume(tmp_path / "flat.mha", [[1, 2], [3, 4]], (1.0, 1.0), (0.0, 0.0), (1, 0, 0, 1))
    with pytest.raises(ValueError, match=r"has 2 dimensions \(2 x 2\)"):
        read_grid(tmp_path / "flat.mha")


@settings(deadline=None)
@given(st.permutations((0, 1, 2)), st.tuples(*[st.sampled_from((-1, 1))] * 3))
def test_canonical_size_and_spacing_are_those_of_the_image_that_itk_orients(order, signs):
    direction = np.eye(3)[order] * signs
    grid = GRID._replace(direction=tuple(direction.flatten()))
    oriented = SimpleITK.DICOMOrient(grid.place(SimpleITK.Image(grid.size, SimpleITK.sitkUInt8)), "RAS")
    assert grid.canonical_size() == oriented.GetSize()[::-1]
    assert grid.canonical_spacing() == oriented.GetSpacing()[::-1]
