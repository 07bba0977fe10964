import numpy as np
import pytest
from nnunetv2.imageio.reader_writer_registry import recursive_find_reader_writer_by_name

from nnunet_cmc.data import reader_writer
from nnunet_cmc.data.reader_writer import CMCReaderWriter

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
    monkeypatch.setattr(reader_writer, "read_written", lambda _: seen.append((out / "case.nii.gz").exists()))
    seen: list = []
    READER_WRITER.write_seg(array, str(out / "case.nii.gz"), properties)
    assert seen == [False]
