"""Tables of scans: which rows become one case, and which tables are refused."""

import numpy as np
import pytest
from tiny_volumes import CLASSES, cmc, sources, voxels_of

from nnunet_cmc.dataset_conversion.table import convert_table


@pytest.fixture
def table(tmp_path, write_volume):
    """``table("subject,modality,...", "a,CT,...")`` writes a CSV file and, beside it, the volumes it names."""

    def table(*lines, volumes=True):
        file = tmp_path / "table.csv"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        for name in {cell for line in lines[1:] for cell in line.split(",") if cell.endswith(".nii.gz")}:
            write_volume(tmp_path / name, voxels_of(tmp_path / name, label=True))
        return file

    return table


def names(folder):
    return sorted(file.name.removesuffix(".nii.gz") for file in folder.iterdir())


def test_rows_are_cases_of_their_own(table, tmp_path, nnunet_folders):
    rows = [
        "subject,modality,image,label,part",
        "a,CT,x/a_ct.nii.gz,a_ct_label.nii.gz,train",
        "a,MR,x/a_mr.nii.gz,a_mr_label.nii.gz,",
        "a,MR,x/a_mr2.nii.gz,,",
        "b,CT,b_ct.nii.gz,b_label.nii.gz,test",
    ]
    folder = convert_table(3, "X", table(*rows), CLASSES)
    assert names(folder / "labelsTr") == ["a_CT", "a_MR"]
    assert names(folder / "imagesUn") == ["a_MR_2_0001"]
    assert names(folder / "imagesTs") == ["b_CT_0000"]
    assert cmc(folder)["subjects"] == {"a_CT": "a", "a_MR": "a", "a_MR_2": "a", "b_CT": "b"}
    assert {target: str(source.relative_to(tmp_path)) for target, source in sources(folder).items()} == {
        "imagesTr/a_CT_0000": "x/a_ct.nii.gz",
        "imagesTr/a_MR_0001": "x/a_mr.nii.gz",
        "imagesUn/a_MR_2_0001": "x/a_mr2.nii.gz",
        "imagesTs/b_CT_0000": "b_ct.nii.gz",
        "labelsTr/a_CT": "a_ct_label.nii.gz",
        "labelsTr/a_MR": "a_mr_label.nii.gz",
        "labelsTs/b_CT": "b_label.nii.gz",
    }


def test_rows_that_share_a_label_are_one_case(table, nnunet_folders):
    rows = [
        "\ufeffimage,label,modality,subject",  # as spreadsheets write it, in another order
        "a1.nii.gz,a.nii.gz,FLAIR,a",
        "a2.nii.gz,a.nii.gz,T1,a",
        "b2.nii.gz,,T1,b",
    ]
    folder = convert_table(3, "X", table(*rows), CLASSES)
    assert names(folder / "imagesTr") == ["a_0000", "a_0001"]
    assert names(folder / "imagesUn") == ["b_0001"]
    assert cmc(folder)["present_channels"] == {"a": [0, 1], "b": [1]}
    assert {target: source.name for target, source in sources(folder).items()} == {
        "imagesTr/a_0000": "a1.nii.gz",
        "imagesTr/a_0001": "a2.nii.gz",
        "imagesUn/b_0001": "b2.nii.gz",
        "labelsTr/a": "a.nii.gz",
    }


def test_scans_of_a_subject_on_two_grids(table, nnunet_folders, write_volume):
    rows = [
        "subject,case,modality,image,label",
        "a,a_ctmr,CT,a_ct.nii.gz,a.nii.gz",
        "a,a_ctmr,MR,a_mr.nii.gz,a.nii.gz",
        "a,a_pet,PET,a_pet.nii.gz,a_pet_label.nii.gz",
        "b,b_pet,PET,b_pet.nii.gz,",
    ]
    file = table(*rows)
    for name in ("a_pet", "a_pet_label", "b_pet"):
        write_volume(file.with_name(f"{name}.nii.gz"), np.resize(np.array([1, 0], np.uint8), (4, 5, 5)))
    folder = convert_table(3, "X", file, CLASSES)
    assert names(folder / "labelsTr") == ["a_ctmr", "a_pet"]
    assert names(folder / "imagesUn") == ["b_pet_0002"]
    assert cmc(folder)["present_channels"] == {"a_ctmr": [0, 1], "a_pet": [2], "b_pet": [2]}
    assert cmc(folder)["subjects"] == {"a_ctmr": "a", "a_pet": "a", "b_pet": "b"}
    without = [",".join(cell for i, cell in enumerate(row.split(",")) if i != 1) for row in rows]
    with pytest.raises(ValueError, match=r"Case a has a modality twice, several labels, .*name in the column case"):
        convert_table(4, "X", table(*without), CLASSES)


def test_a_label_of_registered_scans_has_the_values_of_its_own_modality(table, nnunet_folders, write_volume):
    rows = [
        "subject,case,modality,image,label",
        "a,a,CT,a_ct.nii.gz,",
        "a,a,MR,a_mr.nii.gz,a_label.nii.gz",
        "b,b,CT,b_ct.nii.gz,b_label.nii.gz",
    ]
    file = table(*rows)
    write_volume(file.with_name("a_label.nii.gz"), np.resize(np.array([7, 0], np.uint8), (4, 4, 4)))
    folder = convert_table(3, "X", file, {"CT": {"liver": 1}, "MR": {"liver": 7}})
    assert names(folder / "labelsTr") == ["a", "b"]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_table_as_a_spreadsheet_writes_it(table, nnunet_folders, write_volume, delimiter):
    rows = [
        ["\ufeff"],
        ["Subject", " Modality", "IMAGE", "Label", "Part", "", ""],
        ["a", "CT", "a.nii.gz", "l.nii.gz", "Train", "", ""],
        ["", "", "", "", "", "", ""],
        ["b", "CT", '"b; c,\td.nii.gz"', "", "TEST", "", ""],
        ["c", "CT", "c.nii.gz"],
        ["", " ", "", "", "", "", ""],
        [],
    ]
    file = table("\r")
    for name in ("a.nii.gz", "l.nii.gz", "b; c,\td.nii.gz", "c.nii.gz"):
        write_volume(file.with_name(name), voxels_of(file.with_name(name), label=True))
    file.write_text("\r\n".join(map(delimiter.join, rows)), encoding="utf-8", newline="")
    folder = convert_table(3, "X", file, CLASSES)
    parts = {part: names(folder / part) for part in ("imagesTr", "labelsTr", "imagesTs", "imagesUn")}
    assert parts == {
        "imagesTr": ["a_CT_0000"],
        "labelsTr": ["a_CT"],
        "imagesTs": ["b_CT_0000"],
        "imagesUn": ["c_CT_0000"],
    }


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_first_line_that_tells_excel_of_the_delimiter(table, nnunet_folders, delimiter):
    file = table("subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz")
    lines = file.read_text().replace(",", delimiter)
    file.write_text(f"\ufeffsep={delimiter}\r\n{lines}", encoding="utf-8")
    assert names(convert_table(3, "X", file, CLASSES) / "imagesTr") == ["a_CT_0000"]
    file.write_text(f"sep={delimiter}\n{lines}{delimiter}\n{'b,CT,'.replace(',', delimiter)}", encoding="utf-8")
    with pytest.raises(ValueError, match="Line 5 of"):
        convert_table(4, "X", file, CLASSES)


def test_names_in_another_unicode_form(table, nnunet_folders):
    rows = ["subject,modality,image,label", "M\u00fc,CT,a.nii.gz,l.nii.gz", "Mu\u0308,MR,b.nii.gz,l.nii.gz"]
    assert cmc(convert_table(3, "X", table(*rows), CLASSES))["present_channels"] == {"M\u00fc": [0, 1]}


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16"])
def test_a_table_that_is_not_in_utf_8(table, nnunet_folders, encoding):
    file = table("subject,modality,image")
    file.write_bytes("subject,modality,image\nMüller,CT,a.nii.gz\n".encode(encoding))
    with pytest.raises(ValueError, match=r"table.csv cannot be read as CSV in UTF-8 \(.*save it so, .* CSV UTF-8"):
        convert_table(3, "X", file, CLASSES)


def test_classes_for_each_modality(table, nnunet_folders):
    rows = ["subject,modality,image,label", "a,CT,a1.nii.gz,l1.nii.gz", "a,MR,a2.nii.gz,l2.nii.gz"]
    with pytest.raises(ValueError, match=r"a_MR, .*l2.nii.gz: has the label value\(s\) \[1\], but the classes are"):
        convert_table(3, "X", table(*rows), {"CT": {"liver": 1}, "MR": {"liver": 2}})


def test_a_file_is_not_a_scan_and_a_label(table, nnunet_folders):
    rows = ["subject,modality,image,label", "a,CT,ct.nii.gz,l.nii.gz", "a,MR,l.nii.gz,l.nii.gz"]
    message = (
        r"l.nii.gz is the label of case a \(training part\) and the MR|l.nii.gz is the MR scan of case a .* and the l"
    )
    with pytest.raises(ValueError, match=message):
        convert_table(3, "X", table(*rows), CLASSES)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["subject,modality", "a,CT"], r"must have the columns subject, modality, image, label, part, case, but has"),
        (["subject,modality,image,mask", "a,CT,a,b"], r"must have the columns"),
        (["subject,modality,image"], "has no row below its header"),
        (["subject,modality,image", "a,,a.nii.gz"], "Line 2 of .*table.csv needs a subject, a modality, an image"),
        (["", ",,", ""], r"must have the columns .* but has \[\]"),
        (["subject,,modality,image", "a,,CT,a.nii.gz"], "must have the columns"),
        (["Subject,subject,modality,image", "a,a,CT,a.nii.gz"], "must have the columns"),
        (["subject;modality;image", "a;CT;a.nii.gz", "", "b;CT;b.nii.gz;x"], "Line 4 of .* but is b;CT;b.nii.gz;x"),
        (["subject,modality,image,part", "a,CT,a.nii.gz,val"], "Line 2 .* the part train or test, but is a,CT"),
        (
            ["subject,modality,image,label", "../../x,CT,a.nii.gz,l.nii.gz"],
            "case '../../x_CT', .*: cannot be the name of a file",
        ),
        (
            ["subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz", "a,MR,b.nii.gz,l.nii.gz", "a,MR,c.nii.gz,"],
            "Case a has a modality twice",
        ),
        (
            ["subject,modality,image,case", "a,CT,a.nii.gz,x", "b,MR,b.nii.gz,x"],
            "Case x has a modality twice, several labels, parts or subjects",
        ),
        (["subject,modality,image,case", "a,CT,a.nii.gz,"], "Line 2 of .* a case if that is a column, and .* is a,CT"),
        (["subject,modality,image,label", "a,CT,gone.nii,l.nii.gz"], "gone.nii: cannot be read"),
        (
            ["subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz", "a,CT,a.nii.gz,l.nii.gz"],
            r"Lines 2 and 3 of .*table.csv have the same image .*a.nii.gz: give every scan one row",
        ),
        (
            ["subject,modality,image,label,part", "a,CT,a.nii.gz,l.nii.gz,", "", "b,MR,x/../a.nii.gz,k.nii.gz,test"],
            "Lines 2 and 4 of .* have the same image",
        ),
        (
            ["subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz", "b,CT,b.nii.gz,l.nii.gz"],
            r"Lines 2 and 3 of .* have the same label .*l.nii.gz, but the subjects a and b: give every subject labels",
        ),
        (
            ["subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz", "a,MR,b.nii.gz,"],
            r"table.csv has no label for MR in the training part: if the scans of a subject lie on one grid, write .* "
            "into the rows of all its modalities; otherwise",
        ),
        (
            ["subject,modality,image,label", "a,CT,a.nii.gz,l.nii.gz", "a,ct,b.nii.gz,"],
            "The modalities CT and ct differ only in capitals",
        ),
        (["subject,modality,image,label", "a,T1 post,a.nii.gz,l.nii.gz"], "letters, digits .* but one is 'T1 post'"),
    ],
)
def test_tables_that_make_no_sense(table, nnunet_folders, lines, message):
    with pytest.raises(ValueError, match=message):
        convert_table(3, "X", table(*lines), CLASSES)
    assert not list((nnunet_folders / "raw").iterdir())
