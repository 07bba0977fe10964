"""Names of scans in folders: which are alike, whose they are, and files that are named twice."""

import re
from unicodedata import normalize

import pytest
from tiny_volumes import CLASSES, cmc, labels, scans

from nnunet_cmc.dataset_conversion.folders import convert_folders


def test_names_are_compared_whatever_their_unicode_form(tmp_path, nnunet_folders):
    images = {"CT": scans(tmp_path / "ct", normalize("NFC", "Müller")), "MR": scans(tmp_path / "mr", "Mu\u0308ller")}
    folder = convert_folders(3, "X", images, labels(tmp_path / "labels", "Müller"), CLASSES)
    assert cmc(folder)["subjects"] == {normalize("NFC", "Müller"): normalize("NFC", "Müller")}


@pytest.mark.parametrize("other", ["pat 2", "Pat 2 ", "Pat2"])
def test_names_that_differ_only_in_capitals_or_blanks(tmp_path, nnunet_folders, other):
    images = {"CT": scans(tmp_path / "ct", "a", "Pat 2"), "MR": scans(tmp_path / "mr", "a", other)}
    message = (
        r"for 1 problem\(s\) in the files:\n"
        r"  '{0}' \(.*{0}.nii.gz\) and '{1}' \(.*{1}.nii.gz\) differ only in capitals or blanks: name them alike if"
    )
    names = ["Pat 2", other]
    with pytest.raises(ValueError, match=message.format(*sorted(names))):
        convert_folders(3, "X", images, labels(tmp_path / "labels", "a", "Pat 2"), CLASSES)
    apart = {m: labels(tmp_path / f"labels_{m}", *own) for m, own in {"CT": ["a", "Pat 2"], "MR": ["a"]}.items()}
    with pytest.raises(ValueError, match=message.format(*sorted(names, key="{}_".format))):  # cases are Pat 2_CT, ...
        convert_folders(3, "X", images, apart, CLASSES)
    assert not list((nnunet_folders / "raw").iterdir())


@pytest.mark.parametrize(
    ("mr", "label", "messages"),
    [
        (
            "{}_mr",
            "{}",
            ["No scan of MR is named .*mr/p1_mr.nii.gz and .*ct/p1.nii.gz: .*such as '.*/mr/\\*_mr.nii.gz'"],
        ),
        ("{}", "{}.seg", ["label.* have no scan .*the nearest is named p1.* such as '.*/labels/\\*.seg.nii.gz'"]),
        ("x{}", "{}", ["No scan of MR .*such as '.*/mr/x\\*.nii.gz'"]),
        (
            "{}_mr",
            "{}_seg",
            ["label.* have no scan", "No scan of CT .*ct/p1.nii.gz and", "No scan of MR .*_mr.nii.gz'"],
        ),
    ],
)
def test_files_of_a_modality_or_labels_that_are_named_otherwise(tmp_path, nnunet_folders, mr, label, messages):
    names = ("p1", "p2")
    images = {"CT": scans(tmp_path / "ct", *names), "MR": scans(tmp_path / "mr", *map(mr.format, names))}
    with pytest.raises(ValueError) as error:
        convert_folders(3, "X", images, labels(tmp_path / "labels", *map(label.format, names)), CLASSES)
    lines = str(error.value).splitlines()[1:]
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert re.search(message, line)


@pytest.mark.parametrize(
    ("files", "example"),
    [
        (["p1/ct", "p1/mr", "p2/ct", "p2/mr"], "*/ct.nii.gz"),
        (["p1/2020/p1_ct", "p2/2021/p2_ct"], "*/2020/*_ct.nii.gz"),
        (["1/t1_1", "2/t1_2"], "*/t1_*.nii.gz"),
    ],
)
def test_a_folder_for_each_patient_is_given_with_a_star(tmp_path, nnunet_folders, capfd, files, example):
    for file in files:
        scans((tmp_path / "all" / file).parent, (tmp_path / "all" / file).name)
    with pytest.raises(ValueError, match=re.escape(f"give a path with a *, such as '{tmp_path}/all/{example}'")):
        convert_folders(3, "X", {"CT": tmp_path / "all", "MR": tmp_path / "all" / "*"}, tmp_path / "all", CLASSES)
    with pytest.raises(ValueError, match=re.escape(f"give each a path with a *, such as '{tmp_path}/all/{example}'")):
        convert_folders(3, "X", {"CT": tmp_path / "all", "MR": tmp_path / "all"}, tmp_path / "all", CLASSES)
    assert "GDCM" not in "".join(capfd.readouterr())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["p1_v1", "p1_v2", "p2_v1", "p2_v2", "p3_v1"], "p1_v1 and p1_v2 look like scans of one patient"),
        (["k-l", "k-r", "m-l", "m-r"], "k-l and k-r look like"),
        (["a_1", "a_2", "a_3", "b_1", "b_2", "b_3"], ""),  # numbered patients of two hospitals
        (["a_1", "b_1", "c_1", "c_2", "d_1"], ""),
    ],
)
def test_names_that_look_like_visits(tmp_path, nnunet_folders, capsys, names, said):
    images = {"CT": scans(tmp_path / "ct", *names), "MR": scans(tmp_path / "mr", *names)}
    convert_folders(3, "X", images, labels(tmp_path / "labels", *names), CLASSES, dry_run=True)
    printed = capsys.readouterr().out
    assert ("look like" in printed) == bool(said)
    assert said in printed


def test_a_file_has_one_use(tmp_path, nnunet_folders):
    ct, mr = scans(tmp_path / "ct", "p1", "test_p2"), scans(tmp_path / "mr", "p1", "test_p2")
    label = labels(tmp_path / "labels", "p1", "test_p2")
    mixed = labels(scans(tmp_path / "mixed", "a"), "a_label")
    test = [{"CT": ct / "test_*.nii.gz"}, label / "test_*.nii.gz"]
    uses = [
        (
            [{"CT": ct, "MR": mr}, label, CLASSES, *test],
            r"test_p2.nii.gz is the CT scan of case test_p2 \(training part\) and the CT scan of case p2 \(test part\)",
        ),
        (
            [{"CT": mixed / "*.nii.gz"}, {"CT": mixed / "*_label.nii.gz"}, CLASSES],
            r"a_label.nii.gz is the label of case a_CT .* and the CT scan of case a_label_CT .*: name it in one",
        ),
        (
            [{"CT": ct, "MR": ct / "test_*.nii.gz"}, {"CT": label, "MR": labels(tmp_path / "l2", "p2")}, CLASSES],
            r"test_p2.nii.gz is the CT scan of case test_p2_CT .* and the MR scan of case p2_MR",
        ),
        ([{"CT": ct, "MR": f"{tmp_path}/c*/test_p2.nii.gz"}, label, CLASSES], "is the CT scan .* and the MR scan of"),
    ]
    for arguments, message in uses:
        with pytest.raises(ValueError, match=message):
            convert_folders(3, "X", *arguments)
    assert not list((nnunet_folders / "raw").iterdir())


@pytest.mark.parametrize("order", [("CT", "MR"), ("MR", "CT")])
@pytest.mark.parametrize("separate", [False, True])
def test_scans_of_one_name_are_of_one_subject(tmp_path, nnunet_folders, order, separate):
    for visit in ("1", "2"):
        scans(tmp_path / "ct" / "p1" / visit, "ct")
    flat = scans(tmp_path / "mr", "p1_1", "p1_2")
    label = labels(tmp_path / "labels", "p1_1", "p1_2")
    label = {"CT": label, "MR": labels(tmp_path / "mr_labels", "p1_1")} if separate else label

    def images(mr):
        return {modality: {"CT": f"{tmp_path}/ct/*/*/ct.nii.gz", "MR": mr}[modality] for modality in order}

    with pytest.raises(
        ValueError, match=r"\n  2 name\(s\) of scans belong to two subjects, such as p1_1: .* is of the"
    ):
        convert_folders(3, "X", images(flat), label, CLASSES)
    folder = convert_folders(3, "X", images(flat / "*_*.nii.gz"), label, CLASSES)
    assert {*cmc(folder)["subjects"].values()} == {"p1"}


def test_parts_of_two_names_that_are_one_when_joined(tmp_path, nnunet_folders):
    for file in ("ct/p_1/2", "mr/p/1_2"):
        scans((tmp_path / file).parent, (tmp_path / file).name)
    label = labels(tmp_path / "labels", "p_1_2")
    with pytest.raises(ValueError, match=r"such as p_1_2: .*ct/p_1/2.nii.gz is of the subject p_1, .*1_2.nii.gz of p;"):
        convert_folders(3, "X", {m: f"{tmp_path}/{m}/*/*.nii.gz" for m in ("ct", "mr")}, label, CLASSES)
    scans(tmp_path / "ct" / "p", "1_2")
    with pytest.raises(ValueError, match="are both named p_1_2: name them apart, remove one, or list the scans in a"):
        convert_folders(3, "X", {"CT": f"{tmp_path}/ct/*/*.nii.gz"}, label, CLASSES)


def test_test_scans_that_are_named_otherwise(tmp_path, nnunet_folders):
    images = {"CT": scans(tmp_path / "ct", "a"), "MR": scans(tmp_path / "mr", "a")}
    test = {"CT": scans(tmp_path / "test_ct", "x"), "MR": scans(tmp_path / "test_mr", "x_mr")}
    label, test_label = labels(tmp_path / "labels", "a"), labels(tmp_path / "test_labels", "x")
    with pytest.raises(ValueError, match=r"No scan of MR is named as a label or .*test_mr/x_mr.nii.gz and"):
        convert_folders(3, "X", images, label, CLASSES, test, test_label)
    folder = convert_folders(3, "X", images, label, CLASSES, test)
    assert sorted(file.name for file in (folder / "imagesTs").iterdir()) == ["x_0000.nii.gz", "x_mr_0001.nii.gz"]
