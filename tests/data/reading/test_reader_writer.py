import nibabel
import numpy as np
import pytest
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIOWithReorient

from nnunet_cmc.data.reading import reader_writer
from nnunet_cmc.data.reading.reader_writer import CMCReaderWriter

READER_WRITER = CMCReaderWriter()


@pytest.fixture
def scan(tmp_path, write_volume):
    """A label map of noise on an oblique grid, as read, and a folder for output."""
    label = np.random.default_rng(0).integers(0, 3, (9, 10, 11)).astype(np.uint8)
    write_volume(tmp_path / "scan.nii.gz", label, (1.5, 1.2, 1.0), direction=(0, 0, 1, 0.8, 0.6, 0, -0.6, 0.8, 0))
    (tmp_path / "out").mkdir()
    array, properties = READER_WRITER.read_seg(str(tmp_path / "scan.nii.gz"))
    return array[0], properties, tmp_path / "out"


def test_nnunet_finds_it():
    assert recursive_find_reader_writer_by_name("CMCReaderWriter") is CMCReaderWriter


def test_what_is_written_is_what_is_read(scan):
    array, properties, out = scan
    image = READER_WRITER.write_seg(array, str(out / "case.nii.gz"), properties)
    assert image.GetSpacing() == pytest.approx((1.5, 1.2, 1.0))
    again, _ = READER_WRITER.read_seg(str(out / "case.nii.gz"))
    np.testing.assert_array_equal(again[0], array)
    assert [file.name for file in out.iterdir()] == ["case.nii.gz"]


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".mha", ".nrrd"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("direction", [(1, 0, 0, 0, 1, 0, 0, 0, 1), (0, 0, -1, 0.8, 0.6, 0, 0.6, -0.8, 0)])
def test_volumes_are_what_nnunets_reader_makes_of_them(tmp_path, write_volume, ending, dtype, direction):
    array = np.random.default_rng(0).uniform(0, 250, (4, 5, 6)).astype(dtype)
    file, second = (str(tmp_path / f"{name}{ending}") for name in "ab")
    write_volume(file, array, (1.5, 1.2, 1.0), (3.0, -4.0, 5.5), direction)
    write_volume(second, array + 1, (1.5, 1.2, 1.0), (3.0, -4.0, 5.5), direction)
    assert_as_stock([file, second])


@pytest.mark.parametrize("dtype", [">i2", ">f4", "<u2"])
def test_a_scaled_file_is_what_nnunets_reader_makes_of_it(tmp_path, dtype):
    header = nibabel.Nifti1Header(endianness=dtype[0])
    image = nibabel.Nifti1Image(np.arange(120).reshape(4, 5, 6).astype(dtype), np.diag([-1, 2, 3, 1]), header)
    image.header.set_slope_inter(0.37, -3.2)
    nibabel.save(image, tmp_path / "a.nii.gz")
    assert_as_stock([str(tmp_path / "a.nii.gz")])
    data, _ = READER_WRITER.read_images([str(tmp_path / "a.nii.gz")])
    assert not np.array_equal(data, data.round())


def assert_as_stock(files):
    data, properties = READER_WRITER.read_images(files)
    expected, expected_properties = SimpleITKIOWithReorient().read_images(files)
    assert properties == expected_properties
    assert data.dtype == expected.dtype == np.float32
    np.testing.assert_array_equal(data, expected)


def test_a_full_disk_leaves_the_file_before(scan, full_disk):
    array, properties, out = scan
    READER_WRITER.write_seg(array * 0, str(out / "case.nii.gz"), properties)
    with full_disk(300), pytest.raises(OSError, match="for lack of space: free some, or choose another disk") as error:
        READER_WRITER.write_seg(array, str(out / "case.nii.gz"), properties)
    assert "case.nii.gz" in error.value.filename
    assert not READER_WRITER.read_seg(str(out / "case.nii.gz"))[0].any()
    assert [file.name for file in out.iterdir()] == ["case.nii.gz"]


def test_what_a_kill_leaves_does_not_look_like_a_result(scan, monkeypatch):
    array, properties, out = scan
    monkeypatch.setattr(reader_writer, "read_image", lambda _: seen.append((out / "case.nii.gz").exists()))
    seen: list = []
    READER_WRITER.write_seg(array, str(out / "case.nii.gz"), properties)
    assert seen == [False]
