"""The cmc key of dataset.json: what it says, what it leaves open, and what it may not say."""

import pytest

from nnunet_cmc.data.format.presence import channel_names, present_channels, subject_of

NAMES = {"0": "CT", "1": "MR", "2": "PET"}


def dataset_json(**cmc):
    return {"channel_names": NAMES, "cmc": {"version": 1, **cmc}}


def test_says_what_is_written():
    dataset = dataset_json(present_channels={"a": [2, 0]}, subjects={"a": "p1"})
    assert present_channels(dataset, "a") == (0, 2)
    assert subject_of(dataset, "a") == "p1"


@pytest.mark.parametrize(
    "dataset", [{"channel_names": NAMES}, dataset_json(), dataset_json(present_channels={"b": [0]})]
)
def test_silent_about_a_case(dataset):
    assert present_channels(dataset, "a") is None
    assert subject_of(dataset, "a") == "a"


def test_channel_names_in_channel_order():
    names = {str(i): f"m{i}" for i in reversed(range(12))}  # "10" sorts before "2" as text
    assert channel_names({"channel_names": names}) == [f"m{i}" for i in range(12)]


def test_channels_of_one_name_are_told_apart():
    names = {"0": "CT", "1": "MR", "2": "CT"}  # two phases of contrast, both normalised as CT
    assert channel_names({"channel_names": names}) == ["CT 0", "MR", "CT 2"]


def test_modalities_of_the_cmc_key_have_names_of_their_own():
    names = {"0": "CT", "1": "CT"}
    dataset = {"channel_names": names, "cmc": {"version": 1, "modalities": ["early", "late"]}}
    assert channel_names(dataset) == ["early", "late"]
    for wrong in (["early"], ["early", "early"], ["early", ""], ["early", 1], {"0": "early", "1": "late"}, None):
        dataset["cmc"]["modalities"] = wrong
        with pytest.raises(ValueError, match=r'"modalities" in the cmc key .* list of 2 different names'):
            channel_names(dataset)


@pytest.mark.parametrize("names", [None, {}, {"0": "CT", "2": "MR"}, ["CT", "MR"]])
def test_channel_names_must_be_numbered(names):
    with pytest.raises(ValueError, match=r"channel_names"):
        channel_names({"channel_names": names})


@pytest.mark.parametrize("channels", [[], [0, 0], [True], ["0"], 0, {"0": 1}, [0.0]])
def test_malformed_channels_are_named_with_their_case(channels):
    with pytest.raises(ValueError, match=r"Case scan_7: .*list of different channel numbers"):
        present_channels(dataset_json(present_channels={"scan_7": channels}), "scan_7")


@pytest.mark.parametrize("channels", [[3], [-1, 0]])
def test_channels_out_of_range(channels):
    with pytest.raises(ValueError, match=r"Case scan_7: .*3 channel\(s\)"):
        present_channels(dataset_json(present_channels={"scan_7": channels}), "scan_7")


@pytest.mark.parametrize("cmc", [{"version": 2}, {}, [], "1"])
def test_unknown_version(cmc):
    dataset = {"channel_names": NAMES, "cmc": cmc}
    for read in (present_channels, subject_of):
        with pytest.raises(ValueError, match=r"reads version 1"):
            read(dataset, "a")


def test_subjects_are_texts():
    with pytest.raises(ValueError, match=r"Case a: .*subjects.* 3"):
        subject_of(dataset_json(subjects={"a": 3}), "a")
    with pytest.raises(ValueError, match=r'"subjects".*must map'):
        subject_of(dataset_json(subjects=["a"]), "a")
