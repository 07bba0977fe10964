"""Files as they are written: voxels, types, headers and grids of images and labels."""

import gzip
import struct

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk
from raw_datasets import SHAPE, read, write

from nnunet_cmc.dataset_conversion.case import Case


@pytest.mark.parametrize("values", [None, {1: 2, 2: 1}])
def test_labels_that_are_nearly_whole_are_rounded(tmp_path, pair, nnunet_folders, label, values):
    file = label(tmp_path / "l.nii.gz", (0, 1.00002, 1.99998, 2.00004), np.float32)
    folder = write([*pair, Case("c", "c", pair[0].images, file, label_values=values)])
    found = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "c.nii.gz")))
    one, two = (1, 2) if values is None else (2, 1)
    np.testing.assert_array_equal(found, np.resize(np.array([0, one, two, two], np.uint8), found.shape))
    assert found.dtype == np.uint8


@pytest.mark.parametrize("name", ["n.nii", "n.nii.gz"])
def test_nifti_2_is_written_as_nifti_1(tmp_path, pair, nnunet_folders, name):
    voxels = np.random.default_rng(0).normal(100, 30, (7, 6, 5)).astype(np.float32)
    transform = np.array([[1, 0, 0, -10], [0, 1.5, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]], float)
    for file, array in ((name, voxels), (f"l_{name}", (voxels > 100).astype(np.uint8))):
        image = nibabel.Nifti2Image(array, transform)
        image.set_qform(transform, 1)
        nibabel.save(image, tmp_path / file)
    folder = write([*pair, Case("c", "c", {0: tmp_path / name}, tmp_path / f"l_{name}")])
    for file, array in (("imagesTr/c_0000.nii.gz", voxels), ("labelsTr/c.nii.gz", voxels > 100)):
        written = nibabel.load(folder / file)
        assert isinstance(written, nibabel.Nifti1Image)
        np.testing.assert_array_equal(written.get_fdata(), array)
        np.testing.assert_allclose(written.affine, transform)
    assert f"{tmp_path / name},rewritten" in (folder / "manifest.csv").read_text()


def test_an_intercept_without_a_slope_is_not_applied(tmp_path, pair, nnunet_folders):
    """As NIfTI has it; ITK, with which nnU-Net reads, would add it, and make the background a class."""
    written = write(pair)
    file = tmp_path / "l.nii.gz"
    plain = nibabel.load(written / "labelsTr" / "a.nii.gz")
    values = np.resize(np.array([0, 1], np.uint8), plain.shape)
    image = nibabel.Nifti1Image(values, plain.affine, plain.header)
    image.set_qform(plain.affine, 1)
    nibabel.save(image, file)
    content = bytearray(gzip.decompress(file.read_bytes()))
    content[112:120] = struct.pack("<2f", 0, 1)  # scl_slope, scl_inter
    file.write_bytes(gzip.compress(bytes(content)))
    assert np.unique(read(file)).tolist() == [1, 2]
    folder = write([*pair, Case("c", "c", pair[0].images, file)], dataset_id=8)
    np.testing.assert_array_equal(read(folder / "labelsTr" / "c.nii.gz"), values.T)


@pytest.mark.parametrize("damage", ["truncated", "sheared", "4-D"])
def test_nifti_2_that_is_no_volume(tmp_path, pair, nnunet_folders, damage):
    transform = np.eye(4)
    transform[0, 2] = 0.5 * (damage == "sheared")
    shape = (7, 6, 5, 2) if damage == "4-D" else (7, 6, 5)
    nibabel.save(nibabel.Nifti2Image(np.ones(shape, np.int16), transform), file := tmp_path / "n.nii")
    if damage == "truncated":
        file.write_bytes(file.read_bytes()[:-50])
    sentence = {"truncated": "cannot be read", "sheared": "not at right angles", "4-D": "has 4 dimensions"}[damage]
    with pytest.raises(ValueError, match=rf"case c, .*n\.nii: {sentence}" if damage != "sheared" else sentence):
        write([*pair, Case("c", "c", {0: file}, None)])
    assert not list((nnunet_folders / "raw").iterdir())


@pytest.mark.parametrize("ending", ["nii", "nrrd", "mha", "mhd"])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_other_formats_keep_voxels_type_and_place(tmp_path, nnunet_folders, ending, dtype, label, volume):
    array = (np.random.default_rng(1).random(SHAPE) * 200 + 1).astype(dtype)
    source = volume(tmp_path / f"a.{ending}", array)
    folder = write([Case("a", "a", {0: source}, label(tmp_path / f"l.{ending}"))], channels=["CT"])
    result = sitk.ReadImage(str(folder / "imagesTr" / "a_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(result), array)
    assert sitk.GetArrayFromImage(result).dtype == dtype
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        np.testing.assert_allclose(
            getattr(result, geometry)(), getattr(sitk.ReadImage(str(source)), geometry)(), atol=1e-5
        )


@pytest.mark.parametrize(("dtype", "highest", "expected"), [(np.float64, 2, np.uint8), (np.int32, 300, np.uint16)])
def test_labels_become_small_integers(tmp_path, nnunet_folders, dtype, highest, expected, label, volume):
    classes = {f"c{i}": i for i in range(1, highest + 1)}
    case = Case("a", "a", {0: volume(tmp_path / "a.nii.gz")}, label(tmp_path / "l.nii.gz", (0, 1, highest), dtype))
    written = read(write([case], channels=["CT"], labels=classes) / "labelsTr" / "a.nii.gz")
    assert written.dtype == expected
    np.testing.assert_array_equal(written, read(case.label))


def test_grids_that_differ_by_rounding_become_one(tmp_path, nnunet_folders, label, volume):
    first = volume(tmp_path / "ct.nii.gz")
    second = volume(tmp_path / "mr.nii.gz", origin=(10.01, -20.0, 30.0), spacing=(1.0, 1.5001, 2.0))
    folder = write([Case("a", "a", {0: first, 1: second}, label(tmp_path / "l.nii.gz", origin=(10, -20, 30.02)))])
    files = [folder / "imagesTr/a_0000.nii.gz", folder / "imagesTr/a_0001.nii.gz", folder / "labelsTr/a.nii.gz"]
    assert len({sitk.ReadImage(str(file)).GetOrigin() for file in files}) == 1
    assert len({sitk.ReadImage(str(file)).GetSpacing() for file in files}) == 1
