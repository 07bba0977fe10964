"""What a converter takes for a volume: endings, DICOM series, and files that must not be left out."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_volumes import CLASSES, files, labels, scans, voxels_of

from nnunet_cmc.dataset_conversion.folders import convert_folders

ENDINGS = [".NII.GZ", ".nii.GZ", ".Nii.Gz", ".NII", ".Nrrd", ".MHA", ".Mhd"]


@pytest.mark.parametrize("ending", ENDINGS)
def test_endings_in_any_case_of_letters(tmp_path, nnunet_folders, ending):
    folders = {}
    for name, make in (("ct", scans), ("labels", labels)):
        folders[name] = make(tmp_path / name, "a", "b", ending=ending.lower())
        file = folders[name] / f"a{ending.lower()}"
        file.rename(file.with_name(f"a{ending}"))
    whole = convert_folders(3, "X", {"CT": folders["ct"]}, folders["labels"], CLASSES)
    pattern = {name: folder / f"*{ending.lower()}" for name, folder in folders.items()}
    by_pattern = convert_folders(4, "X", {"CT": pattern["ct"]}, pattern["labels"], CLASSES)
    for folder in (whole, by_pattern):
        assert sorted(file.name for file in (folder / "labelsTr").iterdir()) == ["a.nii.gz", "b.nii.gz"]
        for part, name in (("imagesTr", "_0000"), ("labelsTr", "")):
            for case in "ab":
                written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / part / f"{case}{name}.nii.gz")))
                source = folders["labels" if part == "labelsTr" else "ct"] / f"{case}{ending.lower()}"
                np.testing.assert_array_equal(written, voxels_of(source, label=part == "labelsTr"))


def test_a_dicom_series_is_one_volume(tmp_path, nnunet_folders, write_series):
    array = np.random.default_rng(0).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    write_series(tmp_path / "scans" / "a", array)
    label = sitk.GetImageFromArray((array > 0).astype(np.uint8))
    label.SetSpacing((1.0, 1.5, 2.0))
    label.SetOrigin((10.0, -20.0, 30.0))
    (tmp_path / "labels").mkdir()
    sitk.WriteImage(label, str(tmp_path / "labels" / "a.nii.gz"))
    folder = convert_folders(3, "X", {"CT": tmp_path / "scans"}, tmp_path / "labels", CLASSES)
    written = sitk.ReadImage(str(folder / "imagesTr" / "a_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), array)
    assert written.GetSpacing() == pytest.approx((1.0, 1.5, 2.0))
    assert written.GetOrigin() == pytest.approx((10.0, -20.0, 30.0))
    assert f"a,a,imagesTr/a_0000.nii.gz,{tmp_path / 'scans' / 'a'},rewritten" in (folder / "manifest.csv").read_text()


def test_a_label_may_be_a_dicom_series(tmp_path, nnunet_folders, write_series):
    array = np.random.default_rng(0).integers(0, 2, (5, 6, 7)).astype(np.int16)
    write_series(tmp_path / "scans" / "a", array + 5)
    write_series(tmp_path / "labels" / "a", array)
    folder = convert_folders(3, "X", {"CT": tmp_path / "scans"}, tmp_path / "labels", CLASSES)
    written = sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / "a.nii.gz")))
    assert written.dtype == np.uint8
    np.testing.assert_array_equal(written, array)


def test_a_dicom_series_without_one_of_its_slices(tmp_path, nnunet_folders, write_series):
    scans(tmp_path / "ct", "b")
    write_series(tmp_path / "ct" / "a", np.ones((6, 4, 4), np.int16), skip=[2])
    with pytest.raises(ValueError, match=r"case a, .*uneven slices \(4.00 mm after 8.dcm, 2.00 mm elsewhere\)"):
        convert_folders(3, "X", {"CT": tmp_path / "ct"}, labels(tmp_path / "l", "b"), CLASSES)


@pytest.mark.parametrize("size", [0, 300, -2])
def test_a_dicom_series_with_a_slice_that_was_cut_short(tmp_path, nnunet_folders, write_series, size):
    scans(tmp_path / "ct", "b")
    write_series(tmp_path / "ct" / "a", np.ones((6, 4, 4), np.int16))
    last = sorted((tmp_path / "ct" / "a").iterdir())[-1]
    (last.parent / "notes.txt").write_text("not of the series")
    last.write_bytes(last.read_bytes()[:size])
    with pytest.raises(ValueError, match=rf"case a, .*holds {last.name}, which cannot be read as DICOM: copy it again"):
        convert_folders(3, "X", {"CT": tmp_path / "ct"}, labels(tmp_path / "l", "b"), CLASSES)
    assert not list((nnunet_folders / "raw").iterdir())


def test_images_further_down_are_a_fault(tmp_path, nnunet_folders, write_series, capsys):
    ct = scans(tmp_path / "ct", "a", "b", "c")
    write_series(ct / "d" / "study" / "series", np.ones((4, 4, 4), np.int16))
    scans(ct / "e", "nested", ending=".nii")
    (ct / "notes" / "old").mkdir(parents=True)
    (ct / "notes" / "old" / "letter.txt").write_text("Dear colleague")
    scans(ct / ".hidden", "scan")
    with pytest.raises(ValueError, match="for 2 problem") as error:
        convert_folders(3, "X", {"CT": ct}, labels(tmp_path / "labels", "a", "b", "c"), CLASSES)
    for line, folder, file in zip(
        str(error.value).splitlines()[1:], (ct / "d", ct / "e"), ("study/series/6.dcm", "nested.nii"), strict=True
    ):
        assert line.startswith(f"  {folder} is no DICOM series, but holds images such as {folder / file}: give the")
    assert f"Left out, not a volume: {ct / 'notes'} (1)" in capsys.readouterr().out
    assert not list((nnunet_folders / "raw").iterdir())


def test_scans_of_other_formats_are_a_fault(tmp_path, nnunet_folders, write_series):
    ct = scans(tmp_path / "ct", "a")
    scans(ct, "b", ending=".hdr")  # and its .img
    series = write_series(tmp_path / "c", np.ones((4, 4, 4), np.int16))
    shutil.copyfile(series / "9.dcm", ct / "c")  # DICOM without an ending
    (ct / "d.MGZ").touch()
    (ct / "._e.mgz").touch()
    with pytest.raises(ValueError, match="for 4 problem") as error:
        convert_folders(3, "X", {"CT": ct}, labels(tmp_path / "labels", "a"), CLASSES)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(" looks like a scan, but is neither")[0] for line in lines] == [
        f"  {ct / name}" for name in ("b.hdr", "b.img", "c", "d.MGZ")
    ]


def test_files_that_begin_with_a_dot_are_passed_over(tmp_path, nnunet_folders, capsys):
    ct, label = scans(tmp_path / "ct", "a"), labels(tmp_path / "labels", "a")
    for folder in (ct, label):
        (folder / "._a.nii.gz").write_bytes(b"\0\5\x16\7" + bytes(200))
        (folder / ".DS_Store").touch()
    folder = convert_folders(3, "X", {"CT": ct}, label, CLASSES)
    assert files(folder) == ["imagesTr/a_0000.nii.gz", "labelsTr/a.nii.gz"]
    assert "Left out" not in capsys.readouterr().out
