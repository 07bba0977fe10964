"""Folders of scans: which files become one case, which are refused, on generated and on real volumes."""

import json
import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.folders import convert_folders

CLASSES = {"liver": 1}


def scans(folder, *names, ending=".nii.gz", size=4, label=False):
    """Files of tiny volumes, all of one size on one grid."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.arange(1, size**3 + 1).reshape(size, size, size)
    for name in names:
        image = sitk.GetImageFromArray((array % 2).astype(np.uint8) if label else array.astype(np.int16))
        sitk.WriteImage(image, str(folder / f"{name}{ending}"))
    return folder


def labels(folder, *names, **options):
    return scans(folder, *names, label=True, **options)


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.glob("*/*"))


def cmc(folder):
    return json.loads((folder / "dataset.json").read_text())["cmc"]


def test_registered_scans_of_one_name_are_one_case(tmp_path, nnunet_folders):
    folder = convert_folders(
        3,
        "X",
        {"CT": scans(tmp_path / "ct", "a", "b", "u"), "MR": scans(tmp_path / "mr", "a", "u", ending=".mha")},
        labels(tmp_path / "labels", "a", "b", ending=".nrrd"),
        CLASSES,
    )
    assert files(folder) == [
        *(f"imagesTr/{case}_000{channel}.nii.gz" for case in "ab" for channel in (0, 1)),
        "imagesUn/u_0000.nii.gz",
        "imagesUn/u_0001.nii.gz",
        "labelsTr/a.nii.gz",
        "labelsTr/b.nii.gz",
    ]
    assert cmc(folder)["present_channels"] == {"a": [0, 1], "b": [0], "u": [0, 1]}
    assert cmc(folder)["subjects"] == {"a": "a", "b": "b", "u": "u"}


def test_separate_scans_are_cases_of_their_own(tmp_path, nnunet_folders):
    folder = convert_folders(
        3,
        "X",
        {"CT": scans(tmp_path / "ct", "a", "u"), "MR": scans(tmp_path / "mr", "a", "b", size=6)},
        {
            "CT": labels(tmp_path / "ct_labels", "a"),
            "MR": labels(tmp_path / "mr_labels", "a", size=6),
        },
        CLASSES,
    )
    assert files(folder) == [
        "imagesTr/a_CT_0000.nii.gz",
        "imagesTr/a_CT_0001.nii.gz",
        "imagesTr/a_MR_0000.nii.gz",
        "imagesTr/a_MR_0001.nii.gz",
        "imagesUn/b_MR_0001.nii.gz",
        "imagesUn/u_CT_0000.nii.gz",
        "labelsTr/a_CT.nii.gz",
        "labelsTr/a_MR.nii.gz",
    ]
    assert cmc(folder)["present_channels"] == {"a_CT": [0], "a_MR": [1], "b_MR": [1], "u_CT": [0]}
    assert cmc(folder)["subjects"] == {"a_CT": "a", "a_MR": "a", "b_MR": "b", "u_CT": "u"}


@pytest.mark.parametrize("separate", [False, True])
def test_part_for_tests(tmp_path, nnunet_folders, separate):
    def labels_of(part, *names):
        if separate:
            return {m: labels(tmp_path / f"{part}_labels_{m}", *names) for m in ("CT", "MR")}
        return labels(tmp_path / f"{part}_labels", *names)

    folder = convert_folders(
        3,
        "X",
        {"CT": scans(tmp_path / "ct", "a"), "MR": scans(tmp_path / "mr", "a")},
        labels_of("train", "a"),
        CLASSES,
        {"MR": scans(tmp_path / "test_mr", "t", "s"), "CT": scans(tmp_path / "test_ct", "t")},
        labels_of("test", "t"),
    )
    if separate:
        images = ["s_MR_0001", "t_CT_0000", "t_MR_0001"]
        labelled = ["t_CT", "t_MR"]
    else:
        images = ["s_0001", "t_0000", "t_0001"]
        labelled = ["t"]
    assert sorted(file.name for file in (folder / "imagesTs").iterdir()) == [f"{name}.nii.gz" for name in images]
    assert sorted(file.name for file in (folder / "labelsTs").iterdir()) == [f"{name}.nii.gz" for name in labelled]
    assert not (folder / "imagesUn").exists()


def test_test_part_without_labels_in_the_layout_of_the_training_part(tmp_path, nnunet_folders):
    ct = scans(tmp_path / "ct", "a")
    test_ct = {"CT": scans(tmp_path / "test", "t")}
    together = convert_folders(3, "X", {"CT": ct}, labels(tmp_path / "l", "a"), CLASSES, test_ct)
    apart = convert_folders(4, "X", {"CT": ct}, {"CT": tmp_path / "l"}, CLASSES, test_ct)
    assert [file.name for file in (together / "imagesTs").iterdir()] == ["t_0000.nii.gz"]
    assert [file.name for file in (apart / "imagesTs").iterdir()] == ["t_CT_0000.nii.gz"]


def test_star_stands_for_the_name(tmp_path, nnunet_folders):
    scans(tmp_path / "all [1]", "p1_flair", "p2_flair", "p1_t1", "p2_t1")
    labels(tmp_path / "all [1]", "p1_seg", "p2_seg", ending=".nii")
    for patient in ("p3", "p4"):
        scans(tmp_path / "each" / patient, "flair")
    source = tmp_path / "all [1]"
    folder = convert_folders(
        3,
        "X",
        {"FLAIR": source / "*_flair.nii.gz", "T1": source / "*_t1.nii.gz"},
        source / "*_seg.nii",
        CLASSES,
        {"FLAIR": tmp_path / "each" / "*" / "flair.nii.gz"},
    )
    assert cmc(folder)["present_channels"] == {"p1": [0, 1], "p2": [0, 1], "p3": [0], "p4": [0]}


def layout(root, files, label=False):
    for file in files:
        scans((root / file).parent, (root / file).name, label=label)


def test_the_name_in_folder_and_file(tmp_path, nnunet_folders):
    cases = ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000"]
    layout(tmp_path, [f"b/{case}/{case}-{kind}" for case in cases for kind in ("t1c", "t2f")])
    layout(tmp_path, [f"b/{case}/{case}-seg" for case in cases], label=True)
    sources = {kind: f"{tmp_path}/b/*/*-{kind}.nii.gz" for kind in ("t1c", "t2f")}
    folder = convert_folders(3, "X", sources, f"{tmp_path}/b/*/*-seg.nii.gz", CLASSES)
    assert cmc(folder)["present_channels"] == {case: [0, 1] for case in cases}
    assert cmc(folder)["subjects"] == {case: case for case in cases}


@pytest.mark.parametrize("ending", [".nii.gz", ""])
def test_sessions_are_cases_of_one_subject(tmp_path, nnunet_folders, ending):
    sessions = [("01", "01"), ("01", "pre"), ("02", "01")]
    names = [f"sub-{s}/ses-{t}/anat/sub-{s}_ses-{t}" for s, t in sessions]
    layout(tmp_path, [f"{name}{kind}" for name in names for kind in ("_T1w", "_FLAIR")])
    layout(tmp_path / "derivatives", names[:2], label=True)
    sources = {kind: f"{tmp_path}/sub-*/ses-*/anat/sub-*_ses-*_{kind}.nii.gz" for kind in ("T1w", "FLAIR")}
    label = f"{tmp_path}/derivatives/sub-*/ses-*/anat/sub-*_ses-*{ending}"
    test = {"T1w": labels(tmp_path / "flat", "sub-03_ses-01") / "sub-*_ses-*.nii.gz"}
    folder = convert_folders(3, "X", sources, label, CLASSES, test)
    assert cmc(folder)["subjects"] == {"01_01": "01", "01_pre": "01", "02_01": "02", "03_01": "03"}
    assert [file.name for file in sorted((folder / "labelsTr").iterdir())] == ["01_01.nii.gz", "01_pre.nii.gz"]


def test_the_same_words_tell_which_texts_are_the_same(tmp_path, nnunet_folders):
    layout(tmp_path, ["site1/P7/P7_t1", "site2/P8/P8_t1"])
    layout(tmp_path, ["site1/P7/P7_seg"], label=True)
    layout(tmp_path / "each", ["p1/t2_1", "p2/t2_2"])
    folder = convert_folders(
        3,
        "X",
        {"T1": f"{tmp_path}/site*/P*/P*_t1.nii.gz"},
        f"{tmp_path}/site*/P*/P*_seg.nii.gz",
        CLASSES,
        {"T1": f"{tmp_path}/each/p*/t2_*.nii.gz"},
    )
    assert cmc(folder)["subjects"] == {"1_7": "7", "2_8": "8", "1": "1", "2": "2"}
    layout(tmp_path, ["site2/P8/P9_t1"])
    with pytest.raises(ValueError, match=r"stand for different texts in .*site2/P8/P9_t1.nii.gz"):
        convert_folders(
            4, "X", {"T1": f"{tmp_path}/site*/P*/P*_t1.nii.gz"}, f"{tmp_path}/site1/P*/P*_seg.nii.gz", CLASSES
        )


def test_every_fault_is_listed(tmp_path, nnunet_folders):
    ct, mr = scans(tmp_path / "ct", "a", "b", "c", "d"), scans(tmp_path / "mr", "b")
    for name in ("a", "c"):
        scans(ct, name, ending=".nrrd")
    scans(mr, "d", size=5)
    (mr / "a.nii.gz").write_text("404: not found")
    test = scans(tmp_path / "test", "b")
    with pytest.raises(ValueError) as error:
        convert_folders(
            3, "X", {"CT": ct, "MR": mr}, labels(tmp_path / "labels", "a", "b", "c", "d", "x"), CLASSES, {"CT": test}
        )
    first, *lines = str(error.value).splitlines()
    assert first == "Nothing was written, for 6 problem(s) in the files:"
    label = tmp_path / "labels" / "x.nii.gz"
    for line, expected in zip(
        lines,
        [
            f"  case a: {ct / 'a.nii.gz'} and {ct / 'a.nrrd'} have the same name: remove",
            f"  case c: {ct / 'c.nii.gz'} and {ct / 'c.nrrd'} have the same name: remove",
            f"  1 label(s) have no scan of the same name in {ct} or {mr} (the first is named a): {label}; rename",
            f"  case b, {ct / 'b.nii.gz'}, {test / 'b.nii.gz'}: exists more than once, perhaps in the training",
            f"  case a, {mr / 'a.nii.gz'}: cannot be read",
            f"  case d, {mr / 'd.nii.gz'}: is not on the grid of {ct / 'd.nii.gz'}",
        ],
        strict=True,
    ):
        assert line.startswith(expected)
    assert not list((nnunet_folders / "raw").iterdir())


def test_says_what_it_leaves_out(tmp_path, nnunet_folders, capsys):
    ct = scans(tmp_path / "ct", "a", ending=".mhd")  # with its voxels in a.raw
    (ct / "notes.txt").touch()
    convert_folders(3, "X", {"CT": ct}, labels(tmp_path / "labels", "a"), CLASSES)
    assert f"Left out, not a volume: {ct / 'a.raw'}, {ct / 'notes.txt'} (2)" in capsys.readouterr().out


def test_sources_that_do_not_fit(tmp_path, nnunet_folders):
    ct, mr = scans(tmp_path / "ct", "a", "b"), scans(tmp_path / "mr", "a")
    label, empty = labels(tmp_path / "label", "a"), tmp_path / "empty"
    empty.mkdir()
    both = {"CT": ct, "MR": mr}
    twice = scans(scans(tmp_path / "twice", "a"), "a", ending=".nrrd")
    wrong = [
        ([{"C T": ct}, label], "letters, digits.*'C T'"),
        ([{"CT": tmp_path / "none"}, label], "There is no folder .*none"),
        ([{"CT": empty}, label], "There is no volume in .*empty: volumes end in .nii.gz .nii .nrrd .mha .mhd"),
        ([{"CT": twice}, label], r"twice/a.nii.gz and .*twice/a.nrrd have the same name"),
        ([{"CT": f"{tmp_path}/**/*.nii.gz"}, label], r"has \*\* in it: .* or list the scans in a table \(--table\)"),
        (
            [{"CT": f"{tmp_path}/*/*.nii.gz"}, label],
            r"The \* of .* stand for different texts in .*/a.nii.gz: .* table \(--table\)",
        ),
        ([{"CT": f"{tmp_path}/*/*_t1.nii.gz"}, label], r"no volume in .*/\*/\*_t1.nii.gz: .* table \(--table\)"),
        ([{"CT": ct / "a*.nii.gz"}, label], r"The \* of .* stands for nothing in .*ct/a.nii.gz"),
        ([{"CT": ct}, labels(tmp_path / "other", "a", "x", "y")], r"2 label\(s\) have no scan .*x.nii.gz, .*y.nii.gz"),
        ([{"CT": ct}, empty], "There is no volume in .*empty"),
        ([both, {"CT": label, "PET": label}], "labels but no images of PET: the images are of CT, MR"),
        ([both, {"CT": label}], r"Modality MR \(channel 1\) has no labelled case"),
        ([both, {"CT": label, "MR": labels(tmp_path / "ab", "a", "b")}], r"1 label\(s\) have no scan .*/mr .*b.nii.gz"),
        ([both, label, CLASSES, {"PET": ct}], "The test modality PET is none of the training modalities CT, MR"),
        ([both, label, CLASSES, {"CT": ct}, {"CT": label}], "must come as the training labels do"),
        ([both, label, CLASSES, None, label], "There are test labels but no test images"),
        ([both, label, CLASSES, {"CT": ct}], r"case a, .*/ct/a.nii.gz, .*/ct/a.nii.gz: exists more than once"),
    ]
    for arguments, message in wrong:
        images, label_source, classes, *test = [*arguments, *([CLASSES] if len(arguments) == 2 else [])]
        with pytest.raises(ValueError, match=message):
            convert_folders(3, "X", images, label_source, classes, *test)
        assert not list((nnunet_folders / "raw").iterdir())


def test_registered_scans_on_different_grids_are_refused(tmp_path, nnunet_folders):
    images = {"CT": scans(tmp_path / "ct", "a"), "MR": scans(tmp_path / "mr", "a", size=5)}
    with pytest.raises(ValueError, match=r"case a, .*mr/a.nii.gz: is not on the grid of .*ct/a.nii.gz.*separate cases"):
        convert_folders(3, "X", images, labels(tmp_path / "labels", "a"), CLASSES)


@pytest.fixture
def real_volumes(shared_data, tmp_path):
    """CT and MR of different patients, one file in each of ct, mr, ct_label and mr_label."""
    for modality in ("CT", "MR"):
        for kind in ("image", "label"):
            target = tmp_path / f"{modality}_{kind}"
            target.mkdir()
            shutil.copyfile(shared_data / "abdomen_ct_mr" / f"{modality}_{kind}.nii.gz", target / f"{modality}1.nii.gz")
    return tmp_path


def test_real_ct_and_mr_of_different_patients(real_volumes, nnunet_folders, require_integrity):
    folder = convert_folders(
        4,
        "Abdomen",
        {"CT": real_volumes / "CT_image", "MR": real_volumes / "MR_image"},
        {"CT": real_volumes / "CT_label", "MR": real_volumes / "MR_label"},
        {"liver": 1, "spleen": 2, "kidneys": 3, "stomach": 4},
    )
    assert cmc(folder)["present_channels"] == {"CT1_CT": [0], "MR1_MR": [1]}
    for case, channel, modality in (("CT1_CT", 0, "CT"), ("MR1_MR", 1, "MR")):
        source = sitk.ReadImage(str(real_volumes / f"{modality}_image" / f"{modality}1.nii.gz"))
        result = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_{channel:04d}.nii.gz"))
        absent = sitk.ReadImage(str(folder / "imagesTr" / f"{case}_{1 - channel:04d}.nii.gz"))
        np.testing.assert_array_equal(sitk.GetArrayFromImage(result), sitk.GetArrayFromImage(source))
        assert not sitk.GetArrayFromImage(absent).any()
        for image in (result, absent):
            assert image.GetSize() == source.GetSize()
            np.testing.assert_allclose(image.GetOrigin(), source.GetOrigin(), atol=1e-4)
            np.testing.assert_allclose(image.GetDirection(), source.GetDirection(), atol=1e-6)
    require_integrity(folder)


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
            first, second = (sitk.ReadImage(str(folder / part / f"{case}{name}.nii.gz")) for case in "ab")
            np.testing.assert_array_equal(sitk.GetArrayFromImage(first), sitk.GetArrayFromImage(second))


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


def test_classes_for_each_modality(tmp_path, nnunet_folders):
    images = {"CT": scans(tmp_path / "ct", "a"), "MR": scans(tmp_path / "mr", "a")}
    label = {"CT": labels(tmp_path / "ct_l", "a"), "MR": tmp_path / "mr_l"}
    (tmp_path / "mr_l").mkdir()
    values = sitk.ReadImage(str(tmp_path / "ct_l" / "a.nii.gz")) * 7
    sitk.WriteImage(values, str(tmp_path / "mr_l" / "a.nii.gz"))
    folder = convert_folders(3, "X", images, label, {"CT": {"liver": 1}, "MR": {"liver": 7}})
    written = [sitk.GetArrayFromImage(sitk.ReadImage(str(folder / "labelsTr" / f"a_{m}.nii.gz"))) for m in ("CT", "MR")]
    np.testing.assert_array_equal(*written)
    with pytest.raises(ValueError, match="classes for each modality, but one folder of labels"):
        convert_folders(4, "X", images, label["CT"], {"CT": {"liver": 1}, "MR": {"liver": 7}})


def test_real_registered_scans(shared_data, tmp_path, nnunet_folders, require_integrity):
    ms, lgg = shared_data / "ms_flair_t1post", shared_data / "lgg_flair_t1post"
    folder = convert_folders(
        3, "MS", {"FLAIR": ms / "*_FLAIR.nii.gz", "T1": ms / "*_T1POST.nii.gz"}, ms / "*_label.nii.gz", {"lesion": 1}
    )
    require_integrity(folder)
    assert cmc(folder)["present_channels"] == {f"patient{i}": [0, 1] for i in ("07", "19", "26")}
    few = {
        name: source / "TCGA_CS_494*.nii.gz"
        for name, source in {
            "FLAIR": lgg / "images_FLAIR",
            "T1": lgg / "images_T1post",
            "label": lgg / "labels",
        }.items()
    }
    folder = convert_folders(4, "LGG", {"FLAIR": few["FLAIR"], "T1": few["T1"]}, few["label"], {"tumour": 1})
    require_integrity(folder)
    for source in sorted((lgg / "labels").glob("TCGA_CS_494*")):
        written = sitk.ReadImage(str(folder / "labelsTr" / source.name.removeprefix("TCGA_CS_494")))
        np.testing.assert_array_equal(
            sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(sitk.ReadImage(str(source)))
        )


def test_real_classes_that_are_not_named(real_volumes, nnunet_folders):
    with pytest.raises(ValueError, match=r"(?s)2 problem.*CT1_CT.*\[4\].*MR1_MR.*\[4\]"):
        convert_folders(
            4,
            "Abdomen",
            {"CT": real_volumes / "CT_image", "MR": real_volumes / "MR_image"},
            {"CT": real_volumes / "CT_label", "MR": real_volumes / "MR_label"},
            {"liver": 1, "spleen": 2, "kidneys": 3},
        )
