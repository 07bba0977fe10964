"""Folders of scans: which files become one case, which are refused, on generated and on real volumes."""

import shutil

import numpy as np
import pytest
import SimpleITK as sitk
from tiny_volumes import CLASSES, cmc, files, labels, scans, sources

from nnunet_cmc.dataset_conversion.folders import convert_folders


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
    assert sources(folder) == {
        "imagesTr/a_0000": tmp_path / "ct/a.nii.gz",
        "imagesTr/a_0001": tmp_path / "mr/a.mha",
        "imagesTr/b_0000": tmp_path / "ct/b.nii.gz",
        "imagesUn/u_0000": tmp_path / "ct/u.nii.gz",
        "imagesUn/u_0001": tmp_path / "mr/u.mha",
        "labelsTr/a": tmp_path / "labels/a.nrrd",
        "labelsTr/b": tmp_path / "labels/b.nrrd",
    }


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
    assert sources(folder) == {
        "imagesTr/a_CT_0000": tmp_path / "ct/a.nii.gz",
        "imagesTr/a_MR_0001": tmp_path / "mr/a.nii.gz",
        "imagesUn/b_MR_0001": tmp_path / "mr/b.nii.gz",
        "imagesUn/u_CT_0000": tmp_path / "ct/u.nii.gz",
        "labelsTr/a_CT": tmp_path / "ct_labels/a.nii.gz",
        "labelsTr/a_MR": tmp_path / "mr_labels/a.nii.gz",
    }


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
    tested = {target: source for target, source in sources(folder).items() if "Ts" in target}
    assert len(tested) == len(images) + len(labelled)
    for target, source in tested.items():
        part, case = target.split("/")
        assert source.name == f"{case[0]}.nii.gz"
        if part == "imagesTs":
            assert source.parent == tmp_path / ("test_mr" if case.endswith("1") else "test_ct")
        elif separate:
            assert source.parent == tmp_path / f"test_labels_{case.removeprefix('t_')}"


def test_test_part_without_labels_in_the_layout_of_the_training_part(tmp_path, nnunet_folders):
    ct = scans(tmp_path / "ct", "a")
    test_ct = {"CT": scans(tmp_path / "test", "t")}
    together = convert_folders(3, "X", {"CT": ct}, labels(tmp_path / "l", "a"), CLASSES, test_ct)
    apart = convert_folders(4, "X", {"CT": ct}, {"CT": tmp_path / "l"}, CLASSES, test_ct)
    assert [file.name for file in (together / "imagesTs").iterdir()] == ["t_0000.nii.gz"]
    assert [file.name for file in (apart / "imagesTs").iterdir()] == ["t_CT_0000.nii.gz"]


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
            f"  {ct / 'a.nii.gz'} and {ct / 'a.nrrd'} are both named a: name them apart, remove one, or list",
            f"  {ct / 'c.nii.gz'} and {ct / 'c.nrrd'} are both named c: name them apart",
            f"  1 label(s) have no scan of the same name in {ct} or {mr} (the nearest is named d): {label}; rename",
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
    scans(tmp_path / "mixed" / "a", "a", "b")
    wrong = [
        ([{"C T": ct}, label], "letters, digits.*'C T'"),
        ([{"CT": tmp_path / "none"}, label], "There is no folder .*none"),
        ([{"CT": empty}, label], "There is no volume in .*empty: volumes end in .nii.gz .nii .nrrd .mha .mhd"),
        ([{"CT": twice}, label], r"twice/a.nii.gz and .*twice/a.nrrd are both named a"),
        ([{"CT": f"{tmp_path}/**/*.nii.gz"}, label], r"has \*\* in it: .* or list the scans in a table \(--table\)"),
        (
            [{"CT": f"{tmp_path}/mixed/*/*.nii.gz"}, label],
            r"The \* of .* stand for different texts in .*/b.nii.gz, but .*/a.nii.gz: .* table \(--table\)",
        ),
        ([{"CT": f"{tmp_path}/*/*_t1.nii.gz"}, label], r"no volume in .*/\*/\*_t1.nii.gz: .* table \(--table\)"),
        ([{"CT": ct / "a*.nii.gz"}, label], r"The \* of .* stands for nothing in .*ct/a.nii.gz"),
        ([{"CT": ct}, labels(tmp_path / "other", "a", "x", "y")], r"2 label\(s\) have no scan .*x.nii.gz, .*y.nii.gz"),
        ([{"CT": ct}, empty], "There is no volume in .*empty"),
        (
            [both, {"CT": label, "PET": label}],
            "labels but no images of PET: the images are of CT, MR. .* merge masks of",
        ),
        ([{"CT": ct, "MR": f"{ct}/"}, label], "CT and MR have the same source, .*/ct/: give each a folder of its own"),
        ([{"CT": ct, "ct": mr}, label], "The modalities CT and ct differ only in capitals"),
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
    with pytest.raises(ValueError, match=r"case a, .*mr/a.nii.gz: is not on the grid of .*ct/a.nii.gz.*unpaired"):
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
