"""Paths with ``*``: which scans become one case, and whose they are."""

import pytest
from tiny_volumes import CLASSES, cmc, labels, scans, sources

from nnunet_cmc.dataset_conversion.folders import convert_folders


def layout(root, files, label=False):
    for file in files:
        scans((root / file).parent, (root / file).name, label=label)


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
    assert sources(folder) == {
        **{f"imagesTr/{p}_0000": source / f"{p}_flair.nii.gz" for p in ("p1", "p2")},
        **{f"imagesTr/{p}_0001": source / f"{p}_t1.nii.gz" for p in ("p1", "p2")},
        **{f"imagesTs/{p}_0000": tmp_path / "each" / p / "flair.nii.gz" for p in ("p3", "p4")},
        **{f"labelsTr/{p}": source / f"{p}_seg.nii" for p in ("p1", "p2")},
    }


def test_the_name_in_folder_and_file(tmp_path, nnunet_folders):
    cases = ["BraTS-GLI-00000-000", "BraTS-GLI-00001-000"]
    layout(tmp_path, [f"b/{case}/{case}-{kind}" for case in cases for kind in ("t1c", "t2f")])
    layout(tmp_path, [f"b/{case}/{case}-seg" for case in cases], label=True)
    images = {kind: f"{tmp_path}/b/*/*-{kind}.nii.gz" for kind in ("t1c", "t2f")}
    folder = convert_folders(3, "X", images, f"{tmp_path}/b/*/*-seg.nii.gz", CLASSES)
    assert cmc(folder)["present_channels"] == {case: [0, 1] for case in cases}
    assert cmc(folder)["subjects"] == {case: case for case in cases}


@pytest.mark.parametrize("ending", [".nii.gz", ""])
def test_sessions_are_cases_of_one_subject(tmp_path, nnunet_folders, ending):
    sessions = [("01", "01"), ("01", "pre"), ("02", "01")]
    names = [f"sub-{s}/ses-{t}/anat/sub-{s}_ses-{t}" for s, t in sessions]
    layout(tmp_path, [f"{name}{kind}" for name in names for kind in ("_T1w", "_FLAIR")])
    layout(tmp_path / "derivatives", names[:2], label=True)
    images = {kind: f"{tmp_path}/sub-*/ses-*/anat/sub-*_ses-*_{kind}.nii.gz" for kind in ("T1w", "FLAIR")}
    label = f"{tmp_path}/derivatives/sub-*/ses-*/anat/sub-*_ses-*{ending}"
    test = {"T1w": labels(tmp_path / "flat", "sub-03_ses-01") / "sub-*_ses-*.nii.gz"}
    folder = convert_folders(3, "X", images, label, CLASSES, test)
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
    assert cmc(folder)["subjects"] == {"1_7": "7", "2_8": "8", "1_1": "1", "2_2": "2"}
    layout(tmp_path, ["site2/P8/P9_t1"])
    with pytest.raises(ValueError, match=r"stand for different texts in .*site2/P8/P9_t1.nii.gz"):
        convert_folders(
            4, "X", {"T1": f"{tmp_path}/site*/P*/P*_t1.nii.gz"}, f"{tmp_path}/site1/P*/P*_seg.nii.gz", CLASSES
        )


@pytest.mark.parametrize(
    ("pattern", "visits", "names"),
    [
        ("patient*/visit*.nii.gz", ["patient1/visit1", "patient1/visit2"], {"1_1": "1", "1_2": "1"}),
        ("*_v*.nii.gz", ["p1_v1", "p1_v2"], {"p1_1": "p1", "p1_2": "p1"}),
        ("Sub-*_Ses-*.nii.gz", ["Sub-1_Ses-1", "Sub-1_Ses-2"], {"1_1": "1", "1_2": "1"}),
        ("*/*/ct.nii.gz", ["p1/2020/ct", "p1/2021/ct"], {"p1_2020": "p1", "p1_2021": "p1"}),
        ("*/*_ct.nii.gz", ["p1/3_ct", "p1/5_ct"], {"p1_3": "p1", "p1_5": "p1"}),
        ("*/*/*_ct.nii.gz", ["p1/2020/p1_ct", "p1/2021/p1_ct"], {"p1_2020_p1": "p1", "p1_2021_p1": "p1"}),
    ],
)
def test_different_texts_are_parts_of_the_name_after_the_subject(tmp_path, nnunet_folders, pattern, visits, names):
    for modality in ("CT", "MR"):
        layout(tmp_path / modality, visits)
    layout(tmp_path / "masks", visits, label=True)
    images = {modality: tmp_path / modality / pattern for modality in ("CT", "MR")}
    folder = convert_folders(3, "X", images, tmp_path / "masks" / pattern, CLASSES)
    assert cmc(folder)["subjects"] == names
    assert cmc(folder)["present_channels"] == {name: [0, 1] for name in names}
    for name, visit in zip(names, visits, strict=True):
        assert sources(folder)[f"imagesTr/{name}_0000"] == tmp_path / "CT" / f"{visit}.nii.gz"
        assert sources(folder)[f"imagesTr/{name}_0001"] == tmp_path / "MR" / f"{visit}.nii.gz"
        assert sources(folder)[f"labelsTr/{name}"] == tmp_path / "masks" / f"{visit}.nii.gz"


def test_one_file_among_others_whose_texts_differ(tmp_path, nnunet_folders):
    layout(tmp_path, ["b/P7/P7-t1", "b/P8/P9-t1", "b/P9/P9-t1"])
    message = r"different texts in .*b/P8/P9-t1.nii.gz, but for one text in .*b/P7/P7-t1.nii.gz: give .* as in patient"
    with pytest.raises(ValueError, match=message):
        convert_folders(4, "X", {"T1": f"{tmp_path}/b/*/*-t1.nii.gz"}, f"{tmp_path}/b/*/*-t1.nii.gz", CLASSES)


def test_numbered_visits_are_not_taken_for_their_patient(tmp_path, nnunet_folders):
    layout(tmp_path / "ct", [f"patient{patient}/visit{visit}" for patient in "12" for visit in "12"])
    source = {"CT": f"{tmp_path}/ct/patient*/visit*.nii.gz"}
    with pytest.raises(ValueError, match=r"2 label\(s\) have no scan of the same name"):
        convert_folders(3, "X", source, labels(tmp_path / "by_patient", "1", "2"), CLASSES)
    folder = convert_folders(3, "X", source, labels(tmp_path / "by_visit", "2_1"), CLASSES)
    assert cmc(folder)["subjects"] == {"1_1": "1", "1_2": "1", "2_1": "2", "2_2": "2"}
