"""What the writer of raw datasets refuses in files, all of it at once; formats and grids that only converters meet."""

import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset

SHAPE = (5, 6, 7)  # z, y, x


def write(cases, **options):
    return write_raw_dataset(7, "X", ("CT", "MR"), {"liver": 1, "spleen": 2}, cases, **options)


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def truncated(volume, file):
    content = volume(file).read_bytes()
    file.write_bytes(content[: len(content) // 2])
    return file


def skewed(volume, file):
    file = file.with_name("mr.mha")
    head = "ObjectType = Image\nNDims = 3\nTransformMatrix = 1 0 0 0.6 0.8 0 0 0 1\nElementSpacing = 1 1.5 2\n"
    head += "DimSize = 7 6 5\nElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    file.write_bytes(head.encode() + bytes([1] * 210))
    return file


MIRRORED = (-0.8, -0.6, 0.0, -0.6, 0.8, 0.0, 0.0, 0.0, 1.0)
BAD_IMAGES = {
    "missing": (lambda v, f: f, "mr.nii.gz: cannot be read"),
    "truncated plain": (lambda v, f: truncated(v, f.with_name("mr.nii")), "mr.nii: cannot be read"),
    "truncated nrrd": (lambda v, f: truncated(v, f.with_name("mr.nrrd")), "mr.nrrd: cannot be read"),
    "size": (lambda v, f: v(f, np.ones((5, 6, 8), np.int16)), r"size \(8, 6, 5\) instead of \(7, 6, 5\)"),
    "spacing": (lambda v, f: v(f, spacing=(1.0, 1.6, 2.0)), r"spacing \(1.0, 1.6, 2.0\) instead of"),
    "origin": (lambda v, f: v(f, origin=(10.0, -20.0, 30.5)), r"origin \(10.0, -20.0, 30.5\) instead of"),
    "direction": (lambda v, f: v(f, direction=MIRRORED), r"direction \(-0.8, .* instead of \(0.8, "),
    "zero": (lambda v, f: v(f, np.zeros(SHAPE, np.int16)), "is zero everywhere, which means an absent modality"),
    "one slice": (lambda v, f: v(f, np.ones((1, 6, 7), np.int16)), r"has a single slice \(7 x 6 x 1 voxels\)"),
    "axes": (skewed, "has axes that are not at right angles"),
}


@pytest.mark.parametrize("bad", BAD_IMAGES)
def test_bad_image_is_named_and_nothing_is_written(tmp_path, pair, nnunet_folders, volume, bad):
    make, message = BAD_IMAGES[bad]
    file = make(volume, tmp_path / "mr.nii.gz")
    case = Case("c", "c", {0: pair[0].images[0], 1: file}, pair[0].label)
    with pytest.raises(ValueError, match=rf"(?s)for \d problem.*case c, .*{message}"):
        write([*pair, case])
    assert names(nnunet_folders / "raw") == []


BAD_LABELS = {
    "unknown value": ((0, 1, 3, 9), np.uint8, {}, r"value\(s\) \[3, 9\], but the classes are \[0, 1, 2\]"),
    "negative": ((0, -1), np.int16, {}, r"value\(s\) \[-1\]"),
    "fraction": ((0, 1.5), np.float32, {}, "not integers, such as 1.5: give the label as it was drawn, or resample"),
    "nearly": ((0, 1.01), np.float32, {}, "values that are not integers, such as 1.01: give the label"),
    "NaN": ((0, np.nan), np.float32, {}, "not integers, such as nan"),
    "empty": ((0,), np.uint8, {}, "l.nii.gz: shows no class at all: leave it out"),
    "shifted": ((1,), np.uint8, {"origin": (10.5, -20, 30)}, r"l.nii.gz: is not on the grid of .*_ct.nii.gz \(origin"),
}


@pytest.mark.parametrize("bad", BAD_LABELS)
def test_bad_label_is_named_and_nothing_is_written(tmp_path, pair, nnunet_folders, label, bad):
    values, dtype, geometry, message = BAD_LABELS[bad]
    case = Case("c", "c", pair[0].images, label(tmp_path / "l.nii.gz", values, dtype, **geometry))
    with pytest.raises(ValueError, match=rf"(?s)for 1 problem.*case c, .*{message}"):
        write([*pair, case])
    assert names(nnunet_folders / "raw") == []


@pytest.mark.parametrize("axes", ["RAS", "LPI", "PIR", "SAL"])
def test_a_label_with_flipped_or_permuted_axes_is_brought_into_place(tmp_path, pair, nnunet_folders, label, axes):
    straight = {"direction": (1.0, 0, 0, 0, 1, 0, 0, 0, 1)}
    scan = label(tmp_path / "scan.nii.gz", range(1, 212), np.int16, **straight)
    drawn = sitk.ReadImage(label(tmp_path / "l.nii.gz", (0, 1, 2, 0, 2), **straight))
    sitk.WriteImage(sitk.DICOMOrient(drawn, axes), tmp_path / "l.nii.gz")
    case = Case("c", "c", {0: scan}, tmp_path / "l.nii.gz")
    written = sitk.ReadImage(write([*pair, case]) / "labelsTr" / "c.nii.gz")
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(drawn))
    assert (written.GetOrigin(), written.GetDirection()) == (drawn.GetOrigin(), drawn.GetDirection())


def test_an_oblique_label_with_flipped_axes_and_values_to_be_numbered(tmp_path, pair, nnunet_folders, label):
    drawn = sitk.ReadImage(label(tmp_path / "l.nii.gz", (0, 500, 0, 7), np.int16))
    sitk.WriteImage(sitk.Flip(sitk.PermuteAxes(drawn, (2, 0, 1)), (True, False, True)), tmp_path / "l.nii.gz")
    case = Case("c", "c", pair[0].images, tmp_path / "l.nii.gz", label_values={500: 1, 7: 2})
    written = sitk.ReadImage(write([*pair, case]) / "labelsTr" / "c.nii.gz")
    old = sitk.GetArrayFromImage(drawn)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), (old == 500) + 2 * (old == 7))


def test_a_label_of_a_part_of_its_scan_is_told_how_to_fill_it(tmp_path, pair, nnunet_folders, label):
    drawn = sitk.ReadImage(label(tmp_path / "l.nii.gz"))
    sitk.WriteImage(drawn[1:6, ::-1, 2:], tmp_path / "l.nii.gz")
    message = (
        r"l.nii.gz: is not on the grid of .*\(size .*\): its voxels are some of that scan's, as 3D Slicer crops a "
        r"label, so fill it up by SimpleITK.Resample\(label, scan, SimpleITK.Transform\(\), "
        r"SimpleITK.sitkNearestNeighbor\)\."
    )
    with pytest.raises(ValueError, match=message):
        write([*pair, Case("c", "c", pair[0].images, tmp_path / "l.nii.gz")])


@pytest.mark.parametrize("between", [0.5, 1.0])
def test_a_label_of_voxels_that_are_not_those_of_its_scan(tmp_path, pair, nnunet_folders, label, between):
    drawn = sitk.ReadImage(label(tmp_path / "l.nii.gz"))
    drawn.SetOrigin(drawn.TransformContinuousIndexToPhysicalPoint((between, 0, 0)))
    sitk.WriteImage(drawn, tmp_path / "l.nii.gz")
    with pytest.raises(
        ValueError, match=r"\(origin .*\): give the label of this scan, or resample it there by nearest"
    ):
        write([*pair, Case("c", "c", pair[0].images, tmp_path / "l.nii.gz")])


def with_transforms_apart(source, target, distance):
    volume = nibabel.load(source)
    higher = volume.affine.copy()
    higher[2, 3] += distance
    volume.set_qform(higher, 1)
    volume.set_sform(volume.affine, 2)
    nibabel.save(volume, target)
    return target


def test_transforms_of_a_header_that_disagree(tmp_path, pair, nnunet_folders):
    file = with_transforms_apart(pair[0].label, tmp_path / "l.nii.gz", 30)
    message = r"\(origin .*; the qform and sform of .*l.nii.gz lie 30 mm apart: make them equal\): give the label of"
    with pytest.raises(ValueError, match=message):
        write([*pair, Case("c", "c", pair[0].images, file)])


@pytest.mark.parametrize(("distance", "noticed"), [(30, True), (0.12, True), (0.05, False)])
def test_transforms_that_disagree_in_the_same_way_in_all_files(
    tmp_path, pair, nnunet_folders, capsys, distance, noticed
):
    sources = {"i": pair[0].images[0], "l": pair[0].label}
    files = {n: with_transforms_apart(source, tmp_path / f"{n}.nii.gz", distance) for n, source in sources.items()}
    write([*pair, Case("c", "c", {0: files["i"]}, files["l"])], dry_run=True)
    said = (
        f"qform and sform differ, so programs place the file differently: {files['i']} ({distance} mm), {files['l']} "
    )
    assert (said in capsys.readouterr().out) == noticed


def test_all_problems_come_at_once(tmp_path, pair, nnunet_folders, volume, label):
    cases = [
        *pair,
        Case("c", "c", {0: volume(tmp_path / "c.nii.gz", np.zeros(SHAPE, np.int16))}, tmp_path / "missing.nii.gz"),
        Case("d", "d", {1: tmp_path / "gone.mha"}),
        Case("e", "e", pair[0].images, label(tmp_path / "e.nii.gz", (0, 5), origin=(0.0, 0.0, 0.0)), test=True),
    ]
    with pytest.raises(ValueError, match=r"5 problem\(s\)") as error:
        write(cases)
    lines = str(error.value).splitlines()[1:]
    assert [line.split(",")[0].strip() for line in lines] == ["case c", "case c", "case d", "case e", "case e"]
    assert "missing.nii.gz" in lines[1]


def test_a_scan_that_can_be_read_but_is_beyond_the_memory(pair, nnunet_folders, monkeypatch):
    def out_of_memory(voxels):
        raise MemoryError

    monkeypatch.setattr("nnunet_cmc.dataset_conversion.case_checks.count_not_finite", out_of_memory)
    with pytest.raises(ValueError, match=r"cannot be read \(out of memory: it has 7 x 6 x 5 voxels\)\."):
        write(pair, processes=1)
    assert names(nnunet_folders / "raw") == []


def test_a_full_disk(tmp_path, pair, nnunet_folders, volume, label, full_disk):
    """A file that fits nowhere is noticed though ITK does not notice it."""
    array = np.random.default_rng(0).normal(size=(20, 20, 20)).astype(np.float32)
    case = Case("c", "c", {0: volume(tmp_path / "c.nii", array)})
    with full_disk(20_000), pytest.raises(OSError, match="for lack of space: free some, or choose") as error:
        write([*pair, case], processes=1)
    assert Path(error.value.filename).name == "c_0000.nii.gz"
    assert names(nnunet_folders / "raw") == []
    assert write([*pair, case], processes=1).is_dir()


@pytest.mark.usefixtures("ordinary_user")
def test_a_folder_that_cannot_be_written_to_is_noticed_before_the_work(pair, nnunet_folders):
    raw = nnunet_folders / "raw"
    raw.chmod(0o555)
    pair[0].label.write_bytes(b"")  # what the work would find
    with pytest.raises(PermissionError) as error:
        write(pair)
    raw.chmod(0o755)
    assert os.path.dirname(error.value.filename) == str(raw)
