"""What a dataset.json says, parsed once; unsound ones are in test_raw_dataset.py and test_fuzz.py."""

import json
from dataclasses import FrozenInstanceError

import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription

CONTENT = {
    "channel_names": {"1": "MR", "0": "CT", "2": "CT"},
    "labels": {"background": 0, "liver": 1, "organs": [1, 2], "ignore": 3},
    "file_ending": ".nrrd",
    "cmc": {"version": 1, "present_channels": {"a": [2, 0], "b": None}, "subjects": {"a": "p1"}},
}


def test_all_that_it_says(tmp_path):
    file = tmp_path / "dataset.json"
    file.write_text(json.dumps(CONTENT))
    description = DatasetDescription.read(file)
    assert description == DatasetDescription.of(CONTENT) == DatasetDescription.of(description)
    assert description.modalities == ("CT 0", "MR", "CT 2")
    assert description.normalization_names == ("CT", "MR", "CT")
    assert description.labels == {"background": 0, "liver": 1, "organs": (1, 2), "ignore": 3}
    assert description.label_values() == [0, 1, 2, 3]
    assert description.file_ending == ".nrrd"
    assert description.present_channels == {"a": (0, 2)}
    assert [description.possible_channels(case) for case in "ab"] == [(0, 2), (0, 1, 2)]
    assert [description.subject_of(case) for case in "ab"] == ["p1", "b"]
    assert description.has_cmc_key
    with pytest.raises(FrozenInstanceError):
        description.file_ending = ".mha"


def parsed(names=("CT", "MR", "PET"), **cmc):
    """Of channels of these names, in order, or of whatever else ``channel_names`` is."""
    names = {str(i): name for i, name in enumerate(names)} if isinstance(names, tuple) else names
    return DatasetDescription.from_dict({**CONTENT, "channel_names": names, "cmc": {"version": 1, **cmc}})


@pytest.mark.parametrize("channels", [None, {"b": [0]}])
def test_where_it_is_silent_about_a_case(channels):
    description = parsed(**({} if channels is None else {"present_channels": channels}))
    assert "a" not in description.present_channels
    assert description.possible_channels("a") == (0, 1, 2)
    assert description.subject_of("a") == "a"


def test_modalities_in_channel_order():
    names = {str(i): f"m{i}" for i in reversed(range(12))}  # "10" sorts before "2" as text
    assert parsed(names).modalities == tuple(f"m{i}" for i in range(12))


def test_modalities_of_the_cmc_key_have_names_of_their_own():
    description = parsed(("CT", "CT"), modalities=["early", "late"])  # two phases of contrast, both normalised as CT
    assert (description.modalities, description.normalization_names) == (("early", "late"), ("CT", "CT"))
    for wrong in (["early"], ["early", "early"], ["early", ""], ["early", 1], {"0": "early", "1": "late"}, None):
        with pytest.raises(ValueError, match=r'"modalities" in the cmc key .* list of 2 different names'):
            parsed(("CT", "CT"), modalities=wrong)


@pytest.mark.parametrize("names", [None, {}, {"0": "CT", "2": "MR"}, ["CT", "MR"]])
def test_channel_names_must_be_numbered(names):
    with pytest.raises(ValueError, match=r"channel_names"):
        parsed(names)


@pytest.mark.parametrize("channels", [[], [0, 0], [True], ["0"], 0, {"0": 1}, [0.0]])
def test_malformed_channels_are_named_with_their_case(channels):
    with pytest.raises(ValueError, match=r"Case scan_7: .*list of different channel numbers"):
        parsed(present_channels={"scan_7": channels})


@pytest.mark.parametrize("channels", [[3], [-1, 0]])
def test_channels_out_of_range(channels):
    with pytest.raises(ValueError, match=r"Case scan_7: .*3 channel\(s\)"):
        parsed(present_channels={"scan_7": channels})


@pytest.mark.parametrize("cmc", [{"version": 2}, {}, [], "1"])
def test_unknown_version(cmc):
    with pytest.raises(ValueError, match=r"reads version 1"):
        DatasetDescription.from_dict({**CONTENT, "cmc": cmc})


def test_subjects_are_texts():
    with pytest.raises(ValueError, match=r"Case a: .*subjects.* 3"):
        parsed(subjects={"a": 3})
    with pytest.raises(ValueError, match=r'"subjects".*must map'):
        parsed(subjects=["a"])


def test_a_stock_dataset_says_nothing_of_its_cases():
    stock = {key: value for key, value in CONTENT.items() if key != "cmc"}
    listed = {"a": {"images": ["a_0000.nrrd"], "label": "a.nrrd"}}
    description = DatasetDescription.from_dict({**stock, "dataset": listed})
    assert (description.present_channels, description.subjects, description.has_cmc_key) == ({}, {}, False)
    assert description.listed_files == listed


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"file_ending": "nrrd"}, '"file_ending" must be one such as'),
        ({"labels": {"liver": 1}}, '"labels" must have the background 0'),
        ({"channel_names": {}}, '"channel_names" numbered'),
        ({"cmc": {"version": 2}}, "reads version 1"),
        ({"cmc": {"version": 1, "subjects": {"../a": "p"}}}, "which is not a file name"),
        ({"labels": {"background": [0], "liver": 1}}, '"labels" must have the background 0'),
        ({"labels": {"background": 0, "liver": 1, "ignore": [2]}}, '"labels" must have the background 0'),
        ({"cmc": {"version": 1, "present_channels": {"c": [7]}}}, r"Case c: .* has 3 channel\(s\)"),
    ],
)
def test_what_is_unsound_is_named_with_the_file(change, sentence):
    with pytest.raises(ValueError, match=rf"^model/dataset\.json: .*{sentence}"):
        DatasetDescription.from_dict({**CONTENT, **change}, "model/dataset.json")


@pytest.mark.parametrize(
    ("labels", "sentence"),
    [
        ({"background": 0, "liver": 1, "ignore": 2}, "This does not support an ignore label"),
        ({"background": 0, "liver": [1, 2], "lesion": [2]}, "This does not support region-based labels"),
        ({"background": 0, "liver": [1]}, None),
    ],
)
def test_labels_of_one_integer_each(labels, sentence):
    description = DatasetDescription.from_dict({**CONTENT, "labels": labels})
    if sentence is None:
        description.require_plain_labels("This")
        assert description.labels == {"background": 0, "liver": 1}
        return
    with pytest.raises(ValueError, match=sentence):
        description.require_plain_labels("This")
