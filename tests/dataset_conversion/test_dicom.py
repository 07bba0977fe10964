"""DICOM series: values and positions of every voxel as the headers of its own slice say, or a refusal by name."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.dicom import read_series, slices_of
from nnunet_cmc.dataset_conversion.folders import convert_folders
from nnunet_cmc.dataset_conversion.volume import volume_grid, volume_name

STORED = np.random.default_rng(0).integers(-3000, 20000, (5, 6, 7)).astype(np.int16)
STORED[0, 0] = 0


def by_slice(*values):
    return dict(enumerate(values))


def labels(folder, image):
    label = sitk.Cast(image > 0, sitk.sitkUInt8)
    folder.mkdir()
    sitk.WriteImage(label, str(folder / "a.nii.gz"))
    return folder


RESCALES = {
    "beyond 16 bits": ((1, 3.7, 3.7, 3.7, 3.7), (0,) * 5, np.float32),
    "tiny": ((1, 3e-4, 3e-4, 2e-4, 1e-4), (0,) * 5, np.float32),
    "fractions": ((0.5, 0.37, 0.41, 1, 2), (0, -1024, 5.5, 7, 0), np.float32),
    "whole numbers": ((1, 2, 3, 1, -1), (0, -1024, 40000, 0, 7), np.int64),
    "one for all": ((1,) * 5, (-1024,) * 5, np.int32),
}


@pytest.mark.parametrize("sop_class", ["2", "4", "128"])  # CT, MR, PET
@pytest.mark.parametrize("rescale", RESCALES)
def test_each_slice_has_a_slope_and_an_intercept_of_its_own(tmp_path, write_slices, sop_class, rescale):
    slopes, intercepts, dtype = RESCALES[rescale]
    tags = {"RescaleSlope": by_slice(*slopes), "RescaleIntercept": by_slice(*intercepts)}
    write_slices(tmp_path / "a", STORED, SOPClassUID=f"1.2.840.10008.5.1.4.1.1.{sop_class}", **tags)
    expected = STORED * np.reshape(slopes, (5, 1, 1)) + np.reshape(intercepts, (5, 1, 1))
    found = sitk.GetArrayFromImage(read_series(tmp_path / "a"))
    assert np.can_cast(found.dtype, dtype)
    assert found.dtype.kind == np.dtype(dtype).kind
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_dataset_has_the_values_of_every_slice(tmp_path, nnunet_folders, write_slices):
    slopes = np.array([1, 3.7, 3.7, 3.7, 0.3])
    tags = {"RescaleSlope": by_slice(*slopes), "RescaleIntercept": 0}
    image = read_series(write_slices(tmp_path / "ct" / "a", STORED, **tags))
    folder = convert_folders(3, "X", {"CT": tmp_path / "ct"}, labels(tmp_path / "labels", image), {"liver": 1})
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "imagesTr" / "a_0000.nii.gz")))
    np.testing.assert_allclose(written, STORED * slopes[:, None, None], rtol=1e-6)
    assert written.max() > 60000


def test_slices_with_and_without_a_sign(tmp_path, write_slices):
    planes = [*STORED[:2], np.full((6, 7), 60000, np.uint16), STORED[3]]
    found = sitk.GetArrayFromImage(read_series(write_slices(tmp_path / "a", planes)))
    np.testing.assert_array_equal(found, np.array([plane.astype(int) for plane in planes]))


@pytest.mark.parametrize("order", [(0, 1, 2, 3, 4), (4, 3, 2, 1, 0), (3, 0, 4, 1, 2)])
def test_every_slice_lies_where_its_header_says(tmp_path, write_slices, order):
    rows, columns = np.array([0.8, 0.6, 0]), np.array([-0.36, 0.48, -0.8])
    positions = np.array([10, -20, 30]) + 2.5 * np.outer(order, np.cross(rows, columns))
    tags = {"ImageOrientationPatient": [*rows, *columns], "PixelSpacing": [1.25, 1.5]}
    tags["ImagePositionPatient"] = by_slice(*positions.round(4).tolist())
    image = read_series(write_slices(tmp_path / "a", STORED, **tags))
    assert image.GetSpacing() == pytest.approx((1.5, 1.25, 2.5), abs=1e-4)
    voxels = sitk.GetArrayFromImage(image)
    for plane, position in zip(STORED, positions, strict=True):
        place = image.TransformPhysicalPointToContinuousIndex(position)
        np.testing.assert_allclose(place, np.round(place), atol=1e-3)
        np.testing.assert_array_equal(voxels[round(place[2])], plane)
    assert volume_grid(tmp_path / "a") == (image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())


def shifted(step):
    return by_slice(*([10, -20 + step * number, 30 + 2 * number] for number in range(5)))


TILTED = [1, 0, 0, 0, 0.93969262, -0.34202014]
UNEQUAL = [*STORED[:3], np.ones((6, 8), np.int16), STORED[4]]
DIFFER = r"is a DICOM series whose slices differ \(3.dcm from "
REFUSED = {
    "tilted gantry": (
        STORED,
        {"ImageOrientationPatient": TILTED},
        r"along their normal \(2.74 mm off between 0.dcm and",
    ),
    "drift": (STORED, {"ImagePositionPatient": shifted(0.05)}, r"not stacked along their normal \(0.20 mm off between"),
    "one slice aside": (STORED, {"ImagePositionPatient": {**shifted(0), 2: [10.5, -20, 34]}}, r"0.50 mm off.* 2.dcm"),
    "rising steps": (
        np.repeat(STORED[:3], 3, axis=0),
        {"ImagePositionPatient": by_slice(*([10, -20, 2 * z + 0.19 * max(z - 4, 0)] for z in range(9)))},
        r"uneven slices \(2.19 mm",
    ),
    "two time points": (
        STORED,
        {"ImagePositionPatient": by_slice(*([10, -20, 2 * (number // 2)] for number in range(5)))},
        r"several slices at one position \(0.dcm and 1.dcm\): leave one time point",
    ),
    "no positions": (STORED, {"ImagePositionPatient": [0, 0, 0]}, "several slices at one position"),
    "orientation": (
        STORED,
        {"ImageOrientationPatient": {3: [1, 0, 0, 0, 0, -1]}},
        rf"{DIFFER}.*direction \(1.0, 0.0, 0.0",
    ),
    "little turned": (
        STORED,
        {"ImageOrientationPatient": {3: [0.9990482, 0.0436194, 0, -0.0436194, 0.9990482, 0]}},
        rf"{DIFFER}.*direction",
    ),
    "spacing": (
        STORED,
        {"PixelSpacing": {3: [1.5, 1.6]}},
        rf"{DIFFER}.*spacing \(1.6, 1.5, 1.5\) instead of \(1.5, 1.5",
    ),
    "size": (UNEQUAL, {}, rf"{DIFFER}.*size \(8, 6, 1\) instead of \(7, 6, 1\)"),
    "shades": (
        STORED,
        {"PhotometricInterpretation": {3: "MONOCHROME1"}},
        rf"{DIFFER}.*interpretation MONOCHROME1 inst",
    ),
    "rescale type": (
        STORED,
        {"RescaleType": by_slice("HU", "HU", "HU", "US", "HU")},
        rf"{DIFFER}.*type US instead of HU",
    ),
    "units": (STORED, {"Units": by_slice(*["BQML"] * 3, "CNTS", "BQML")}, rf"{DIFFER}.*units CNTS instead of BQML"),
    "no slope": (STORED, {"RescaleSlope": {3: 0}, "RescaleIntercept": {3: 5}}, "3.dcm, which has a rescale slope of 0"),
    "no pixel spacing": (STORED, {"PixelSpacing": [0, 0]}, r"0.dcm, whose pixel spacing cannot be used \(0.*: correct"),
    "negative spacing": (STORED, {"PixelSpacing": [-1.5, 1.5]}, "0.dcm, whose pixel spacing cannot be used"),
    "position left out": (STORED, {"ImagePositionPatient": {2: None}}, r"position cannot be used \(there is none\)"),
    "no orientation": (STORED, {"ImageOrientationPatient": [1, 0, 0, 0.2, 0.98, 0]}, "0.dcm, whose orientation cannot"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_slices_that_make_no_volume(tmp_path, write_slices, what):
    planes, tags, sentence = REFUSED[what]
    write_slices(tmp_path / "a", planes, **tags)
    with pytest.raises(ValueError, match=sentence):
        slices_of(tmp_path / "a")
    with pytest.raises(ValueError, match=sentence):
        read_series(tmp_path / "a")


@pytest.mark.parametrize("drift", [0.0, 0.0009])  # mm a slice: what a scanner rounds
def test_rounded_positions_make_a_volume(tmp_path, write_slices, drift):
    write_slices(tmp_path / "a", STORED, ImagePositionPatient=shifted(drift))
    assert slices_of(tmp_path / "a")[1].size == (7, 6, 5)


@pytest.mark.parametrize(
    "drift", [0.035, 0.05]
)  # mm a slice of 40 mm: within and beyond the rounding of an orientation
def test_a_rounded_orientation_is_no_tilt(tmp_path, write_slices, drift):
    positions = by_slice(*([10, -20 + drift * number, 40 * number] for number in range(5)))
    folder = write_slices(tmp_path / "a", STORED, ImagePositionPatient=positions, PixelSpacing=[0.5, 0.5])
    if drift < 0.04:
        assert slices_of(folder)[1].spacing == pytest.approx((0.5, 0.5, 40))
    else:
        with pytest.raises(ValueError, match=r"not stacked along their normal \(0.20 mm off"):
            slices_of(folder)


def test_several_frames_in_a_file(tmp_path):
    (tmp_path / "a").mkdir()
    sitk.WriteImage(sitk.GetImageFromArray(STORED.astype(np.uint16)), str(tmp_path / "a" / "enhanced.dcm"))
    for source in (tmp_path / "a", tmp_path / "a" / "enhanced.dcm"):
        with pytest.raises(
            ValueError, match=r"holds enhanced.dcm, a multi-frame DICOM file of 5 frames.*: convert it to"
        ):
            volume_grid(source)


def test_a_file_of_a_series_is_no_volume(tmp_path, write_slices):
    write_slices(tmp_path / "a", STORED)
    with pytest.raises(ValueError, match="is one file of a DICOM series: give the folder"):
        volume_grid(tmp_path / "a" / "0.dcm")


def test_names_that_begin_with_a_dot_are_passed_over(tmp_path, write_slices):
    folder = write_slices(tmp_path / "a", STORED)
    (folder / "._0.dcm").write_bytes(b"\0\5\x16\7" + bytes(200))
    (folder / ".DS_Store").touch()
    shutil.copyfile(folder / "0.dcm", folder / ".0.dcm")
    assert slices_of(folder)[1].size == (7, 6, 5)
    for file in folder.glob("?.dcm"):
        file.unlink()
    assert volume_name(folder) is None


def test_a_slice_cut_short_among_names_that_end_in_numbers(tmp_path, write_slices):
    folder = write_slices(tmp_path / "a", STORED)
    for file in folder.iterdir():
        file.rename(folder / f"IM.000{file.stem}")
    assert slices_of(folder)[1].size == (7, 6, 5)
    (folder / "IM.0004").write_bytes((folder / "IM.0004").read_bytes()[:300])
    with pytest.raises(ValueError, match=r"holds IM.0004, which cannot be read as DICOM: copy it again"):
        slices_of(folder)


def test_another_series_further_down(tmp_path, write_slices):
    folder = write_slices(tmp_path / "a", STORED)
    (folder / "notes").mkdir()
    (folder / "notes" / "letter.txt").touch()
    assert slices_of(folder)[1].size == (7, 6, 5)
    write_slices(folder / "more" / "b", STORED)
    with pytest.raises(ValueError, match=r"holds a DICOM series and, further down, .*/more/b/0\.dcm: give the folder"):
        slices_of(folder)


def test_colours(tmp_path, write_slices):
    tags = {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PlanarConfiguration": 0, "BitsAllocated": 8}
    planes = np.ones((3, 6, 7, 3), np.uint8)
    with pytest.raises(ValueError, match="has 3 values a voxel: give a series with one"):
        slices_of(write_slices(tmp_path / "a", planes, **tags, BitsStored=8, HighBit=7))
