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
        ({"cmc": {"version": 1, "subjects": {"../a": "p"}}}, "which is no name of a file"),
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
        ({"background": [0], "liver": [1]}, None),
    ],
)
def test_labels_of_one_integer_each(labels, sentence):
    description = DatasetDescription.from_dict({**CONTENT, "labels": labels})
    if sentence is None:
        description.require_plain_labels("This")
        return
    with pytest.raises(ValueError, match=sentence):
        description.require_plain_labels("This")
