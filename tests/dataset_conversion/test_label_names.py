"""Classes from files, and their numbers in the dataset."""

import json

import pytest

from nnunet_cmc.dataset_conversion.label_names import number_classes, read_classes

ITKSNAP = """\
################################################
# ITK-SnAP Label Description File
################################################
    0     0    0    0        0  0  0    "Clear Label"
    1   255    0    0        1  1  1    "left kidney"
    5     0  255    0      0.5  0  1    "liver"
"""


@pytest.mark.parametrize(
    "content",
    [
        {"left kidney": 1, "liver": 5},
        {"1": "left kidney", "5": "liver"},
        {"labels": {"left kidney": 1, "liver": 5}, "name": "Abdomen"},
    ],
)
def test_json(tmp_path, content):
    (tmp_path / "classes.json").write_text(json.dumps(content))
    assert read_classes(tmp_path / "classes.json") == {"left kidney": 1, "liver": 5}


def test_itksnap(tmp_path):
    (tmp_path / "classes.label").write_text(ITKSNAP)
    assert read_classes(tmp_path / "classes.label") == {"left kidney": 1, "liver": 5}


@pytest.mark.parametrize(("name", "text"), [("c.json", '{"left kidney": 1, "liver": 5}'), ("c.label", ITKSNAP)])
def test_a_byte_order_mark(tmp_path, name, text):
    (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    assert read_classes(tmp_path / name) == {"left kidney": 1, "liver": 5}


@pytest.mark.parametrize("text", ["", "liver 1", '1 255 0 0 1 1 1 "liver"\nspleen'])
def test_another_kind_of_file(tmp_path, text):
    (tmp_path / "classes.txt").write_text(text)
    with pytest.raises(ValueError, match="is not a label file of ITK-SNAP"):
        read_classes(tmp_path / "classes.txt")


def test_numbers_in_the_order_of_values():
    numbers, values = number_classes({"liver": 5, "background": 0, "left kidney": 1}, ["CT", "MR"])
    assert numbers == {"left kidney": 1, "liver": 2}
    assert values == [{1: 1, 5: 2}, {1: 1, 5: 2}]
    assert number_classes({"liver": 1}, ["CT"]) == ({"liver": 1}, [None])


def test_several_values_of_one_class():
    numbers, values = number_classes({"necrosis": 2, "tumour": [4, 1]}, ["CT"])
    assert numbers == {"tumour": 1, "necrosis": 2}
    assert values == [{1: 1, 4: 1, 2: 2}]


@pytest.mark.parametrize("name", ["Background", "BACKGROUND", "background"])
def test_the_background_in_any_case_of_letters(name):
    assert number_classes({name: 0, "liver": 1}, ["CT"]) == ({"liver": 1}, [None])


@pytest.mark.parametrize(("file", "text"), [("c.json", '{"1": "liver", "5": "liver"}'),
                                            ("c.label", ITKSNAP.replace("left kidney", "liver"))])  # fmt: skip
def test_a_name_of_two_values(tmp_path, file, text):
    (tmp_path / file).write_text(text)
    with pytest.raises(ValueError, match=f"{file} has the class liver twice, as 1 and 5: give every value a name of"):
        read_classes(tmp_path / file)


def test_each_modality_has_values_of_its_own():
    numbers, values = number_classes(
        {"CT": {"liver": 1, "spleen": 2}, "MR": {"spleen": 63, "liver": 126}}, ["CT", "MR"]
    )
    assert numbers == {"liver": 1, "spleen": 2}
    assert values == [None, {126: 1, 63: 2}]


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        ({"liver": 0}, "values of their own, 1 or more"),
        ({"liver": 1, "spleen": 1}, "values of their own"),
        ({"liver": [1, 2], "spleen": 2}, "values of their own"),
        ({"background": 0}, "values of their own"),
        ({"CT": {"liver": 1}}, "classes of CT, but modalities CT, MR"),
        ({"CT": {"liver": 1}, "MR": {"spleen": 1}}, "The classes of MR are spleen, but those of CT are liver"),
    ],
)
def test_classes_that_make_no_sense(classes, message):
    with pytest.raises(ValueError, match=message):
        number_classes(classes, ["CT", "MR"])


def test_a_class_to_be_ignored_is_refused_before_planning_refuses_it():
    with pytest.raises(ValueError, match=r"A class is named ignore, .*: give the class another name"):
        number_classes({"liver": 1, "ignore": 2}, ["CT"])
