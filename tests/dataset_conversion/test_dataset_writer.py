"""The writer of raw datasets: what it writes, what it refuses, and that it leaves nothing behind."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from raw_datasets import SHAPE, read, write
from scipy.ndimage import map_coordinates

from nnunet_cmc.dataset_conversion import case_writer, dataset_writer
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.case_checks import find_problems
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles, equal_files


def names(folder):
    return sorted(file.name for file in folder.iterdir())


def test_places_every_case_where_it_belongs(pair, nnunet_folders):
    image = pair[0].images[0]
    cases = [
        *pair,
        Case("u", "p7", {1: image}),
        Case("t", "t", {1: image}, pair[0].label, test=True),
        Case("s", "s", {0: image}, test=True),
    ]
    folder = write(cases)
    assert folder == nnunet_folders / "raw" / "Dataset007_X"
    parts = ["imagesTr", "imagesTs", "imagesUn", "labelsTr", "labelsTs"]
    assert names(folder) == ["dataset.json", *parts, "manifest.csv", "splits_final.json"]
    assert names(folder / "imagesTr") == ["a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"]
    assert names(folder / "labelsTr") == ["a.nii.gz", "b.nii.gz"]
    assert names(folder / "imagesUn") == ["u_0001.nii.gz"]
    assert names(folder / "imagesTs") == ["s_0000.nii.gz", "t_0001.nii.gz"]
    assert names(folder / "labelsTs") == ["t.nii.gz"]
    content = json.loads((folder / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT", "1": "MR"}
    assert content["labels"] == {"background": 0, "liver": 1, "spleen": 2}
    assert content["numTraining"] == 2
    assert content["file_ending"] == ".nii.gz"
    assert content["cmc"] == {
        "version": 1,
        "present_channels": {"a": [0, 1], "b": [0], "s": [0], "t": [1], "u": [1]},
        "subjects": {"a": "a", "b": "p7", "s": "s", "t": "t", "u": "p7"},
    }
    assert names(folder.parent) == ["Dataset007_X"]


def test_absent_channel_is_exactly_zero_on_the_grid_of_the_case(pair, nnunet_folders):
    folder = write(pair)
    absent = sitk.ReadImage(str(folder / "imagesTr" / "b_0001.nii.gz"))
    present = sitk.ReadImage(str(folder / "imagesTr" / "b_0000.nii.gz"))
    assert not sitk.GetArrayFromImage(absent).any()
    for geometry in ("GetSize", "GetSpacing", "GetOrigin", "GetDirection"):
        assert getattr(absent, geometry)() == getattr(present, geometry)()


def test_nothing_is_rewritten_that_need_not_change(pair, nnunet_folders):
    folder = write(pair)
    for file, source in (("imagesTr/a_0001.nii.gz", pair[0].images[1]), ("labelsTr/a.nii.gz", pair[0].label)):
        assert (folder / file).read_bytes() == source.read_bytes()


@pytest.mark.parametrize("link", [False, True])
def test_a_change_in_place_reaches_the_source_of_a_linked_scan_alone(pair, nnunet_folders, link):
    folder, sources = write(pair, link=link), [pair[0].images[1], pair[0].label]
    before = [source.read_bytes() for source in sources]
    for file in ("imagesTr/a_0001.nii.gz", "labelsTr/a.nii.gz"):  # labels are corrected in place: never linked
        with (folder / file).open("r+b") as content:
            content.write(b"changed")
    assert [source.read_bytes() == content for source, content in zip(sources, before, strict=True)] == [not link, True]


def test_copies_where_links_are_impossible(pair, nnunet_folders, monkeypatch):
    def refuse(*arguments):
        raise OSError("cross-device link")

    monkeypatch.setattr(case_writer.os, "link", refuse)
    folder = write(pair, link=True)
    written = folder / "imagesTr" / "a_0001.nii.gz"
    assert written.read_bytes() == pair[0].images[1].read_bytes()
    assert not written.samefile(pair[0].images[1])


def test_manifest_leads_back_to_every_source(tmp_path, pair, nnunet_folders, label, volume):
    plain = Case("n", "n", {0: volume(tmp_path / "n.nii")}, label(tmp_path / "n_l.nii.gz", dtype=np.int16))
    folder = write([*pair, plain])
    with (folder / "manifest.csv").open() as content:
        rows = list(csv.DictReader(content))
    written = {str(file.relative_to(folder)) for part in ("imagesTr", "labelsTr") for file in (folder / part).iterdir()}
    assert {row["file"] for row in rows} == written
    by_file = {row["file"]: row for row in rows}
    assert by_file["imagesTr/b_0000.nii.gz"] == {
        "case": "b",
        "subject": "p7",
        "file": "imagesTr/b_0000.nii.gz",
        "source": str(pair[1].images[0]),
        "how": "unchanged",
    }
    assert by_file["imagesTr/b_0001.nii.gz"]["how"] == "zeros"
    assert by_file["imagesTr/b_0001.nii.gz"]["source"] == ""
    assert by_file["imagesTr/n_0000.nii.gz"]["how"] == by_file["labelsTr/n.nii.gz"]["how"] == "rewritten"


def test_label_values_are_replaced(tmp_path, nnunet_folders, label, volume):
    image = {0: volume(tmp_path / "a.nii.gz")}
    source = label(tmp_path / "l.nii.gz", (0, 200, 500, 600), np.int16)
    case = Case("a", "a", image, source, label_values={200: 2, 500: 1, 600: 0})
    folder = write([case], channels=["CT"])
    np.testing.assert_array_equal(read(folder / "labelsTr" / "a.nii.gz"), np.resize([0, 2, 1, 0], SHAPE))
    unknown = Case("a", "a", image, source, label_values={200: 2, 500: 1})
    with pytest.raises(ValueError, match=r"value\(s\) \[600\], but the classes are \[0, 200, 500\]"):
        write([unknown], channels=["CT"], dataset_id=8)


def test_images_are_resampled_onto_the_grid_asked_for(tmp_path, nnunet_folders, label, volume):
    z, y, x = np.mgrid[:5, :6, :7].astype(np.float32)
    ramp = volume(tmp_path / "ramp.nii.gz", 100 + x + 10 * y + 100 * z)
    turned = (0.6, -0.8, 0.0, 0.8, 0.6, 0.0, 0.0, 0.0, 1.0)
    other = volume(tmp_path / "other.nii.gz", None, (1.2, 0.8, 1.5), (9.0, -17.0, 31.0), turned)
    geometry = {"spacing": (1.2, 0.8, 1.5), "origin": (9.0, -17.0, 31.0), "direction": turned}
    case = Case("a", "a", {0: other, 1: ramp}, label(tmp_path / "l.nii.gz", **geometry), grid=other)
    folder = write([case])
    target, source = sitk.ReadImage(str(other)), sitk.ReadImage(str(ramp))
    indices = [
        source.TransformPhysicalPointToContinuousIndex(target.TransformIndexToPhysicalPoint((i, j, k)))[::-1]
        for k, j, i in np.ndindex(SHAPE)
    ]
    expected = map_coordinates(read(ramp), np.transpose(indices), order=1, cval=np.nan).reshape(SHAPE)
    inside = np.isfinite(expected)
    written = sitk.ReadImage(str(folder / "imagesTr" / "a_0001.nii.gz"))
    assert 20 < inside.sum() < inside.size
    np.testing.assert_allclose(sitk.GetArrayFromImage(written)[inside], expected[inside], rtol=1e-4)
    assert written.GetDirection() == pytest.approx(turned)
    np.testing.assert_array_equal(read(folder / "imagesTr" / "a_0000.nii.gz"), read(other))
    far = volume(tmp_path / "far.nii.gz", origin=(500.0, 0.0, 0.0))
    with pytest.raises(ValueError, match=r"far.nii.gz: shows nothing of where .*other.nii.gz lies"):
        write([Case("a", "a", {0: other, 1: far}, case.label, grid=other)], dataset_id=8)
    empty = volume(tmp_path / "empty.nii.gz", np.zeros(SHAPE, np.float32), **geometry)
    (problem,) = find_problems(Case("a", "a", {0: other, 1: empty}, case.label, grid=other), [0, 1, 2, 3])
    assert "is zero everywhere" in problem, "and nothing of its position, which is that of the grid"


def test_licence_reference_and_a_fold_by_subject(tmp_path, pair, nnunet_folders):
    image, mask = pair[0].images[0], pair[0].label
    cases = [Case(f"{subject}_{i}", subject, {0: image}, mask) for subject in "pqrst" for i in (1, 2)]
    folder = write(cases, channels=["CT"], licence="CC0", reference="ours", validation=0.2, seed=3)
    content = json.loads((folder / "dataset.json").read_text())
    assert (content["licence"], content["reference"]) == ("CC0", "ours")
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert len({case[0] for case in fold["val"]}) == 1
    assert len(fold["val"]) == 2
    assert sorted(fold["train"] + fold["val"]) == sorted(case.name for case in cases)


def test_dry_run_says_everything_and_writes_nothing(pair, nnunet_folders, capsys):
    write(pair, dry_run=True)
    said = capsys.readouterr().out
    assert f"imagesTr/a_0001.nii.gz  <- {pair[0].images[1]}  unchanged" in said
    assert "imagesTr/b_0001.nii.gz  (absent modality)  zeros" in said
    assert names(nnunet_folders / "raw") == []


def test_several_processes_write_the_same(pair, nnunet_folders):
    one, two = write(pair, dataset_id=1), write(pair, dataset_id=2, processes=2)
    for file in ("imagesTr/a_0000.nii.gz", "imagesTr/b_0001.nii.gz", "labelsTr/b.nii.gz", "manifest.csv"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dataset_id": 0}, "from 1 to 999, but is 0: give another with -d"),
        ({"dataset_id": 1000}, "from 1 to 999"),
        ({"name": "my data"}, "letters, digits.*'my data'"),
        ({"labels": {"liver": 1, "spleen": 3}}, "numbered 1, 2, 3"),
        ({"labels": {"liver": 1, "spleen": 1}}, "numbered 1, 2, 3"),
        ({"labels": {"background": 1, "liver": 2}}, "numbered 1, 2, 3"),
        ({"labels": {}}, "numbered 1, 2, 3"),
        ({"channels": ["CT", "MR", "PET"]}, r"Modality PET \(channel 2\) has no labelled case in the training part"),
    ],
)
def test_unsound_descriptions(pair, nnunet_folders, options, message):
    with pytest.raises(ValueError, match=message):
        write(pair, **options)


def test_a_modality_that_only_test_or_unlabelled_cases_have(pair, nnunet_folders):
    mr = {1: pair[0].images[1]}
    cases = [pair[1], Case("u", "u", mr), Case("t", "t", mr, pair[0].label, test=True)]
    with pytest.raises(ValueError, match=r"Modality MR \(channel 1\) has no labelled case"):
        write(cases)


@pytest.mark.parametrize("name", ["../../x", "/x", "a/b", "a\\b", "..", ".x", "a\nb", ""])
def test_no_file_leaves_the_dataset(pair, nnunet_folders, name):
    with pytest.raises(ValueError, match="cannot be the name of a file"):
        write([*pair, Case(name, "c", pair[0].images, pair[0].label)])
    assert names(nnunet_folders / "raw") == []


def test_the_fold_is_left_out_where_no_subject_can_be_spared(pair, nnunet_folders, capsys):
    folder = write(pair[:1])
    assert not (folder / "splits_final.json").exists()
    assert "There is no splits_final.json. No subject can be used for validation" in capsys.readouterr().out


def test_files_that_no_case_uses_are_named(pair, nnunet_folders, capsys):
    left_out = {Path(f"{i}.txt"): "not a volume" for i in range(7)} | {Path("x.nii"): "not drawn"}
    write(pair, unused=UnusedFiles(left_out), dry_run=True)
    every = (
        "Left out, not a volume: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, 5.txt, 6.txt (7)\nLeft out, not drawn: x.nii (1)"
    )
    assert every in capsys.readouterr().out
    write(pair, unused=UnusedFiles(left_out))
    assert "Left out, not a volume: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt, ... (7)" in capsys.readouterr().out


def test_case_in_two_parts(pair, nnunet_folders):
    with pytest.raises(ValueError, match=r"case a, .*/a_ct.nii.gz, .*/a_ct.nii.gz: exists more than once"):
        write([*pair, Case("a", "a", pair[0].images, test=True)])


def test_a_subject_that_is_trained_on_is_not_tested_on(pair, nnunet_folders):
    scans = pair[0].images
    with pytest.raises(ValueError, match=r"subject s is in the training part with a label \(case s_CT\) and"):
        write([*pair, Case("s_CT", "s", scans, pair[0].label), Case("s_MR", "s", scans, test=True)])
    write([*pair, Case("s_CT", "s", scans), Case("s_MR", "s", scans, test=True)])  # without a label, as `split` tells


def test_a_case_that_nnunet_would_take_for_a_label(pair, nnunet_folders):
    with pytest.raises(ValueError, match=r"case a_seg, .*/a_ct.nii.gz: ends in _seg, .*: rename its files"):
        write([*pair, Case("a_seg", "a", pair[0].images, test=True)])
    assert not list((nnunet_folders / "raw").iterdir())


def test_never_over_an_existing_dataset(pair, nnunet_folders):
    folder = write(pair)
    before = (folder / "dataset.json").read_bytes()
    with pytest.raises(ValueError, match=r"Dataset007_X exists already"):
        write(pair[:1])
    with pytest.raises(ValueError, match=r"ID 7 is taken by Dataset007_X"):
        write(pair, name="Y")
    assert (folder / "dataset.json").read_bytes() == before


def test_variable_unset(pair, monkeypatch):
    monkeypatch.delenv("nnUNet_raw", raising=False)
    with pytest.raises(ValueError, match=r"nnUNet_raw is not set"):
        write(pair)


def test_no_folder_is_made_that_is_named_tilde(pair, nnunet_folders, monkeypatch):
    monkeypatch.chdir(nnunet_folders)
    monkeypatch.setenv("nnUNet_raw", "~/raw")
    with pytest.raises(ValueError, match=r"nnUNet_raw is ~/raw, which nnU-Net does not expand: export nnUNet_raw="):
        write(pair)
    assert not Path("~").exists()


def test_labels_without_a_class_if_allowed(tmp_path, pair, nnunet_folders, label):
    case = Case("c", "c", pair[0].images, label(tmp_path / "l.nii.gz", (0,)))
    folder = write([*pair, case], allow_empty_labels=True)
    assert not read(folder / "labelsTr" / "c.nii.gz").any()


def test_a_stopped_conversion_leaves_nothing_and_can_be_repeated(pair, nnunet_folders, monkeypatch):
    write_case = dataset_writer.write_case

    def stop_at_second(dataset, case, *arguments):
        if case.name == "b":
            raise KeyboardInterrupt
        write_case(dataset, case, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(dataset_writer, "write_case", stop_at_second)
        with pytest.raises(KeyboardInterrupt):
            write(pair)
    assert names(nnunet_folders / "raw") == []
    folder = write(pair)
    assert names(folder.parent) == ["Dataset007_X"]


def test_equal_scans_of_two_cases_are_remarked_on(tmp_path, pair, nnunet_folders, volume, label, capsys):
    rng = np.random.default_rng(0)
    first, other = (volume(tmp_path / f"{name}.nii", rng.integers(1, 99, (5, 6, 7), np.int16)) for name in "fo")
    copy = Path(shutil.copy(first, tmp_path / "copy.nii"))
    mr = pair[0].images[1]
    f, o, c = (Case(file.stem, file.stem, {0: file, 1: mr}, pair[0].label) for file in (first, other, copy))
    write([f, o], dry_run=True)
    assert "Equal scans" not in capsys.readouterr().out
    write([f, o, c], dry_run=True)
    pair = f"{copy} (case copy) and {first} (case f) (1)"
    said = f"Equal scans; remove one of a pair that is a copy under another name: {pair}"
    assert said in capsys.readouterr().out.splitlines()


def test_files_that_differ_away_from_their_middle_are_not_equal(tmp_path):
    contents = {"a": bytes(20000), "b": b"1" + bytes(19999), "c": bytes(20000)}
    a, b, c = (tmp_path / name for name in contents)
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    assert equal_files([a, b, c]) == [(a, c)]


def test_a_copy_of_a_scan_that_is_trained_on_is_not_tested_on(tmp_path, pair, nnunet_folders, volume):
    array = np.random.default_rng(0).integers(1, 99, (5, 6, 7), np.int16)
    files = [volume(tmp_path / f"{name}.nii", array) for name in "ult"]
    unlabelled, labelled, tested = (
        Case(file.stem, file.stem, {0: file}, pair[0].label if file.stem == "l" else None, file.stem == "t")
        for file in files
    )
    message = r"1 problem.*\n  case t, .*/t.nii: equals .*/l.nii \(case l\), which is in the training part with a label"
    with pytest.raises(ValueError, match=message):
        write([*pair, unlabelled, labelled, tested])
    write([*pair, unlabelled, tested])
