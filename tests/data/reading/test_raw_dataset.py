import json
import shutil

import numpy as np
import pytest
from nnunetv2.utilities import utils

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.raw_dataset import cases_of_part, check_dataset, raw_description

VOLUME = np.ones((3, 4, 5), np.float32)


def read_json(folder):
    return json.loads((folder / "dataset.json").read_text())


def description_of(folder):
    return DatasetDescription.read(folder / "dataset.json")


def test_a_good_dataset(make_dataset):
    cases = {"a": ({0: VOLUME}, VOLUME), "u_1": ({1: VOLUME}, None), "u_2": ({0: VOLUME, 1: VOLUME}, None)}
    folder = make_dataset(cases)
    check_dataset(str(folder), description_of(folder))
    tr, un = folder / "imagesTr", folder / "imagesUn"
    assert cases_of_part(folder, "Tr", description_of(folder)) == {
        "a": ([str(tr / "a_0000.nii.gz"), str(tr / "a_0001.nii.gz")], folder / "labelsTr" / "a.nii.gz"),
    }
    assert cases_of_part(folder, "Un", description_of(folder)) == {
        "u_1": ([str(un / "u_1_0001.nii.gz")], folder / "labelsUn" / "u_1.nii.gz"),
        "u_2": ([str(un / "u_2_0000.nii.gz"), str(un / "u_2_0001.nii.gz")], folder / "labelsUn" / "u_2.nii.gz"),
    }


def test_no_folder_no_case(make_dataset):
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME)})
    assert cases_of_part(folder, "Un", description_of(folder)) == {}


@pytest.mark.parametrize("part", ["Tr", "Un", "Ts"])
@pytest.mark.parametrize(
    ("name", "why"),
    [("scan.nii.gz", "scan.nii.gz has no channel number"), ("x_0002.nii.gz", "Case x: .* is of channel 2, but the")],
)
def test_no_part_passes_over_a_file_that_is_named_otherwise(make_dataset, part, name, why):
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME), "u": ({0: VOLUME}, None)})
    images = folder / f"images{part}"
    images.mkdir(exist_ok=True)
    (images / name).touch()
    with pytest.raises(ValueError, match=why):
        cases_of_part(folder, part, description_of(folder))


LISTED = {"images": ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"], "label": "labelsTr/a.nii.gz"}


@pytest.mark.parametrize("planned", [True, False], ids=["with cmc", "without"])
@pytest.mark.parametrize(
    ("listed", "sentence"),
    [
        ({"../../a": LISTED}, r"has the case '../../a', which is not a file name: rename it\."),
        ([], r'"dataset" must map each case to its "images" and its "label", but is \[\]: convert'),
        ({}, r'"dataset" must map each case .* but is {}: '),
        (None, r'"dataset" must map each case .* but is None: '),
        ({"a": {}}, r'Case a of "dataset" must have a list of files "images" and a file "label", but is {}'),
        ({"a": {**LISTED, "images": "a_0000.nii.gz"}}, "Case a of .* must have a list of files"),
        ({"a": {**LISTED, "images": []}}, "Case a of .* must have a list of files"),
        ({"a": {**LISTED, "label": None}}, "Case a of .* must have a list of files"),
        ({"a": [1]}, "Case a of .* must have a list of files"),
    ],
)
def test_cases_that_dataset_json_lists(make_dataset, listed, sentence, planned):
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME)}, declare=planned)
    for entry, expected in ((listed, sentence), ({"a": LISTED}, None)):
        content = read_json(folder) | {"dataset": entry}
        (folder / "dataset.json").write_text(json.dumps(content))
        if expected is None:
            assert raw_description(1) == DatasetDescription.from_dict(content)
            check_dataset(str(folder), description_of(folder))
            continue
        with pytest.raises(ValueError, match=rf"dataset\.json.*{expected}"):
            raw_description(1)


def test_every_bad_case_is_listed(make_dataset, write_volume):
    names = ["channel", "grid", "label", "good"]
    folder = make_dataset({name: ({0: VOLUME}, VOLUME) for name in names} | {"both": ({0: VOLUME, 1: VOLUME}, None)})
    (folder / "imagesTr" / "channel_0001.nii.gz").unlink()
    write_volume(folder / "imagesTr" / "grid_0001.nii.gz", VOLUME[1:])
    (folder / "labelsTr" / "label.nii.gz").unlink()
    (folder / "imagesUn" / "both_0001.nii.gz").unlink()
    for case in ("lost", "both"):  # the label of an unlabelled case does no harm
        write_volume(folder / "labelsTr" / f"{case}.nii.gz", VOLUME)
    write_volume(folder / "imagesUn" / "stray.nii.gz", VOLUME)
    write_volume(folder / "imagesTr" / "patient7.nii.gz", VOLUME)  # which nnU-Net takes for the case "pat"
    write_volume(folder / "imagesUn" / "good_0000.nii.gz", VOLUME)
    with pytest.raises(ValueError) as caught:
        check_dataset(str(folder), description_of(folder))
    lines = str(caught.value).splitlines()
    assert len(lines) == 8
    assert lines.pop(0).startswith(f"{folder / 'imagesTr' / 'patient7.nii.gz'} has no channel number: name it")
    assert "Case channel: the file of channel 1 (MR) is missing" in lines[0]
    assert "Case grid:" in lines[1]
    assert "is not on the grid of" in lines[1]
    assert "Case label: its label" in lines[2]
    assert lines[3].startswith(
        f"Case lost has the label {folder / 'labelsTr' / 'lost.nii.gz'}, but no file in imagesTr:"
    )
    assert "Case both: dataset.json says that it has channel 1 (MR)" in lines[4]
    assert "Case good is both in imagesTr and in" in lines[5]
    assert "stray.nii.gz has no channel number" in lines[6]


def test_a_byte_order_mark_is_read_and_removed_before_nnunet_reads_the_file(make_dataset, capsys):
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME)})
    content = (folder / "dataset.json").read_bytes()
    for name, text in (("dataset.json", content), ("splits_final.json", b"[]")):
        (folder / name).write_bytes(b"\xef\xbb\xbf" + text)
    parsed = DatasetDescription.read(folder / "dataset.json")
    assert parsed == raw_description(1) == DatasetDescription.from_dict(json.loads(content))
    assert (folder / "dataset.json").read_bytes() == content
    assert (folder / "splits_final.json").read_bytes() == b"[]"
    assert f"Removing the byte order mark of {folder / 'dataset.json'}" in capsys.readouterr().out
    raw_description(1)
    assert "byte order mark" not in capsys.readouterr().out


@pytest.mark.parametrize("part", ["imagesTr", "labelsTr", "imagesUn"])
def test_a_file_of_another_ending_is_named(make_dataset, part):
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME), "u": ({0: VOLUME}, None)})
    file = folder / part / "u_0001.NII.gz"
    file.touch()
    with pytest.raises(ValueError, match=rf"^{file} looks like a scan, but is no file that ends in \.nii\.gz, so"):
        check_dataset(str(folder), description_of(folder))


@pytest.mark.parametrize("names", [["p_seg"], ["p", "p_seg"]])
def test_names_that_nnunet_takes_for_its_own_labels_are_refused(make_dataset, names):
    for label in (VOLUME, None):
        folder = make_dataset({"a": ({0: VOLUME}, VOLUME)} | {name: ({0: VOLUME}, label) for name in names})
        with pytest.raises(ValueError, match=r"^Case p_seg ends in _seg, as the names .*: rename its files\.$"):
            check_dataset(str(folder), description_of(folder))
        shutil.rmtree(folder)


def test_files_that_begin_with_a_dot_are_passed_over_by_us_and_nnunet(make_dataset):
    """As macOS adds them to disks of other systems."""
    folder = make_dataset({"a": ({0: VOLUME}, VOLUME), "u": ({0: VOLUME}, None)})
    for file in list(folder.glob("*/*.nii.gz")):
        file.with_name(f"._{file.name}").write_bytes(b"\0\5\x16\7")
        (file.parent / ".DS_Store").touch()
    dataset_json = read_json(folder)
    check_dataset(str(folder), description_of(folder))
    assert set(cases_of_part(folder, "Un", description_of(folder))) == {"u"}
    assert set(utils.get_filenames_of_train_images_and_targets(str(folder), dataset_json)) == {"a"}
    del dataset_json["cmc"]  # what is not ours is left to nnU-Net
    assert set(utils.get_filenames_of_train_images_and_targets(str(folder), dataset_json)) == {"a", "._a"}
