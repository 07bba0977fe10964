"""Folds: what no draw may break (properties), what a file may not say, and where it is written."""

import json
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.splits import (
    Fold,
    held_out_scans,
    hidden_cases,
    load_fold,
    make_folds,
    make_splits,
    require_every_modality,
    splits_in_force,
)
from nnunet_cmc.data.format.splits import write_splits as write

FRACTIONS = [0.1, 0.3, 0.5, 1.0]


def dataset(presence, subjects=None, modalities=2):
    """Description of cases with the given channels and, where given, subjects."""
    names = {str(i): f"M{i}" for i in range(modalities)}
    cmc = {"version": 1, "present_channels": presence, "subjects": subjects or {}}
    content = {"channel_names": names, "labels": {"background": 0, "liver": 1}, "file_ending": ".nii.gz", "cmc": cmc}
    return DatasetDescription.from_dict(content)


@st.composite
def datasets(draw):
    """Up to 40 cases of 2 or 3 modalities, any presence, some subjects with several scans."""
    modalities = draw(st.integers(2, 3))
    channels = st.lists(st.integers(0, modalities - 1), min_size=1, max_size=modalities, unique=True)
    presence = draw(st.lists(channels, min_size=6, max_size=40))
    presence = {f"case_{i:02d}": p for i, p in enumerate(presence)}
    subjects = {case: f"s{draw(st.integers(0, 25))}" for case in presence if draw(st.booleans())}
    return dataset(presence, subjects, modalities)


def modalities_of(data, cases):
    return {c for case in cases for c in data.present_channels[case]}


@settings(max_examples=150, deadline=None)
@given(datasets(), st.floats(0.05, 0.6), st.integers(0, 10), st.randoms())
def test_every_fold_keeps_the_promises(data, val, seed, random):
    cases = list(data.present_channels)
    try:
        folds = make_splits(data, cases, labeled=FRACTIONS, val=val, seed=seed)
    except ValueError as error:
        assume("used for validation" not in str(error) and "no labelled case" not in str(error))
        raise
    shuffled = random.sample(cases, len(cases))
    assert make_splits(data, shuffled, labeled=FRACTIONS, val=val, seed=seed) == folds

    def subjects(fold_cases):
        return {data.subject_of(case) for case in fold_cases}

    everything = set(range(len(data.modalities)))
    previous: set = set()
    for fold in folds:
        train, validation, hidden = (fold.get(key, []) for key in ("train", "val", "unlabeled"))
        assert sorted(train + validation + hidden) == sorted(cases)  # disjoint, and nothing is lost
        assert train
        assert validation
        assert not subjects(train + hidden) & subjects(validation)
        assert modalities_of(data, train) == everything
        assert validation == folds[0]["val"]
        assert previous <= set(train)
        previous = set(train)
    assert "unlabeled" not in folds[-1]


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 60), st.integers(2, 60), st.sampled_from(FRACTIONS), st.integers(0, 100))
def test_each_modality_keeps_its_share(n_ct, n_mr, fraction, seed):
    presence = {f"ct{i}": [0] for i in range(n_ct)} | {f"mr{i}": [1] for i in range(n_mr)}
    (fold,) = make_splits(dataset(presence), presence, labeled=[fraction], val=0.2, seed=seed)
    for name in ("ct", "mr"):
        labeled = sum(case.startswith(name) for case in fold["train"])
        training = labeled + sum(case.startswith(name) for case in fold.get("unlabeled", []))
        assert labeled == 1 or abs(labeled - fraction * training) <= 1.5, "a label of the other one may come first"
        total = {"ct": n_ct, "mr": n_mr}[name]
        assert abs((total - training) - 0.2 * total) <= 1.2
        assert training < total  # each modality is validated


@settings(max_examples=60, deadline=None)
@given(st.integers(15, 80), st.floats(0.1, 1.0), st.floats(0.1, 0.4), st.integers(0, 100))
def test_fractions_are_of_all_cases_however_few_have_the_same_modalities(n, fraction, val, seed):
    """As of brain tumours in four sequences, each patient with any of them: 15 groups."""
    subsets = [[channel for channel in range(4) if number >> channel & 1] for number in range(1, 16)]
    presence = {f"c{i}": subsets[i % 15] for i in range(n)}
    (fold,) = make_splits(dataset(presence, modalities=4), presence, labeled=[fraction], val=val, seed=seed)
    labeled, training = len(fold["train"]), n - len(fold["val"])
    assert abs(labeled - fraction * training) <= 0.5 or labeled <= 4, "a case of each modality at least"
    assert -0.5 <= len(fold["val"]) - min(val * n, n - 15) <= 3, "with a subject of each modality"


def test_labels_of_a_patient_go_together():
    presence = {f"p{i}_{name}": [c] for i in range(20) for c, name in enumerate(("CT", "MR"))}
    data = dataset(presence, {case: case.split("_")[0] for case in presence})
    (fold,) = make_splits(data, presence, labeled=[0.25], val=0.2, seed=3)
    assert set(Counter(case.split("_")[0] for case in fold["train"]).values()) == {2}
    assert len(fold["train"]) == 8


def test_seed_changes_the_draw():
    presence = {f"c{i}": [0, 1] for i in range(20)}
    draws = {json.dumps(make_splits(dataset(presence), presence, labeled=[0.5], val=0.2, seed=s)) for s in range(4)}
    assert len(draws) == 4


def test_silent_dataset_counts_as_fully_scanned():
    stock = dataset({})
    (fold,) = make_splits(stock, [f"c{i}" for i in range(10)], labeled=[0.5], val=0.2, seed=0)
    assert {key: len(fold[key]) for key in fold} == {"train": 4, "val": 2, "unlabeled": 4}


def test_only_modality_of_a_kind_stays_in_training():
    presence = {f"c{i}": [0] for i in range(9)} | {"lone": [1]}
    for seed in range(20):
        (fold,) = make_splits(dataset(presence), presence, labeled=[0.2], val=0.5, seed=seed)
        assert "lone" in fold["train"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labeled": [10]}, r"above 0 and at most 1, but are \[10\]"),
        ({"labeled": [0.1, 0]}, "above 0 and at most 1"),
        ({"labeled": []}, "above 0 and at most 1"),
        ({"val": 0}, "between 0 and 1, but is 0"),
        ({"val": 1.0}, "between 0 and 1, but is 1.0"),
    ],
)
def test_fractions_out_of_range(options, message):
    presence = {f"c{i}": [0, 1] for i in range(9)}
    with pytest.raises(ValueError, match=message):
        make_splits(dataset(presence), presence, **({"labeled": [0.5], "val": 0.2, "seed": 0} | options))


def test_modality_without_a_case_is_named():
    presence = {f"c{i}": [0] for i in range(9)}
    with pytest.raises(ValueError, match=r"Modality M1 \(channel 1\) has no labelled case in .* train with fold all"):
        make_splits(dataset(presence), presence, labeled=[0.5], val=0.2, seed=0)
    with pytest.raises(ValueError, match=r"Modality M1 .* in fold 3"):
        require_every_modality(dataset(presence), presence, "fold 3")


def test_nobody_to_validate_on():
    presence = {"ct": [0], "mr": [1]}
    with pytest.raises(ValueError, match=r"No subject can be used for validation.*2 subject"):
        make_splits(dataset(presence), presence, labeled=[1.0], val=0.5, seed=0)


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6), st.integers(6, 20), st.integers(6, 20), st.integers(0, 20))
def test_cross_validation_holds_every_case_once(folds, n_ct, n_mr, seed):
    presence = {f"ct{i}": [0] for i in range(n_ct)} | {f"mr{i}": [1] for i in range(n_mr)}
    data = dataset(presence, {"ct0": "twin", "mr0": "twin"})
    result = make_folds(data, presence, folds, seed)
    assert sorted(case for fold in result for case in fold["val"]) == sorted(presence)
    sizes = []
    for fold in result:
        assert sorted(fold["train"] + fold["val"]) == sorted(presence)
        assert set(fold) == {"train", "val"}
        assert ("ct0" in fold["val"]) == ("mr0" in fold["val"])
        sizes.append(len(fold["val"]))
        for name, total in (("ct", n_ct), ("mr", n_mr)):
            assert abs(sum(case.startswith(name) for case in fold["val"]) - total / folds) <= 2
    assert max(sizes) - min(sizes) <= 2


def test_cross_validation_that_cannot_be():
    presence = {"a": [0], "b": [0], "c": [1]}
    with pytest.raises(ValueError, match=r"3 subject\(s\) for 4 folds: add subjects"):
        make_folds(dataset(presence), presence, 4, 0)
    with pytest.raises(ValueError, match="at least 2 folds, but --folds is 1: give a larger K"):
        make_folds(dataset(presence), presence, 1, 0)
    with pytest.raises(ValueError, match=r"Modality M1 .* fold . of 3"):
        make_folds(dataset(presence), presence, 3, 0)


def test_reads_back_what_it_wrote(tmp_path, monkeypatch):
    presence = {f"c{i}": [0, 1] for i in range(10)}
    splits = make_splits(dataset(presence), presence, labeled=[0.25, 1.0], val=0.2, seed=0)
    monkeypatch.setenv("nnUNet_raw", str(tmp_path / "raw"))
    monkeypatch.setenv("nnUNet_preprocessed", str(tmp_path / "preprocessed"))
    raw = tmp_path / "raw" / "Dataset502_X"
    raw.mkdir(parents=True)
    assert write("Dataset502_X", splits) == [raw / "splits_final.json"]
    preprocessed = tmp_path / "preprocessed" / "Dataset502_X"
    preprocessed.mkdir(parents=True)
    (preprocessed / "splits_final.json").write_text("an older one")
    assert len(write("Dataset502_X", splits)) == 2
    assert (preprocessed / "splits_final.json").read_text() == (raw / "splits_final.json").read_text()
    assert [file.name for file in raw.iterdir()] == ["splits_final.json"]  # no temporary file stays

    file = raw / "splits_final.json"
    assert load_fold(file, 0) == Fold(splits[0]["train"], splits[0]["val"], splits[0]["unlabeled"])
    assert load_fold(file, 1) == Fold(splits[1]["train"], splits[1]["val"], [])
    assert hidden_cases(file) == set(splits[0]["unlabeled"])
    with pytest.raises(ValueError, match="has no fold 2 but 2 in all, numbered from 0"):
        load_fold(file, 2)


def test_writing_needs_the_raw_dataset(tmp_path, monkeypatch):
    monkeypatch.setenv("nnUNet_raw", str(tmp_path))
    with pytest.raises(ValueError, match=r"no dataset Dataset502_X in nnUNet_raw .*convert it first"):
        write("Dataset502_X", [])
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match=r"nnUNet_raw \(None\)"):
        write("Dataset502_X", [])


def test_no_file(tmp_path):
    assert hidden_cases(tmp_path / "splits_final.json") == set()
    with pytest.raises(ValueError, match=r"There is no .*splits_final.json.*nnunet_cmc split"):
        load_fold(tmp_path / "splits_final.json", 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"train": ["a"], "val": ["b"], "unlabeled": ["a"]}]', 'Case a is in "train" and again in "unlabeled"'),
        ('[{"train": ["a", "a"], "val": ["b"]}]', 'Case a is in "train" and again in "train"'),
        ('[{"train": ["a"]}]', 'list of cases "val", but it is None'),
        ('[{"train": "a", "val": ["b"]}]', "list of cases \"train\", but it is 'a'"),
        ('[{"train": ["a"], "val": []}]', 'no case in "val"'),
        ('{"train": ["a"], "val": ["b"]}', "must be a list of folds"),
        ('[{"train": ["a"', "is not JSON"),
        ('[{"train": ["../a"], "val": ["b"]}]', r"Fold 0 of .*json has the case '../a', which is not a file name"),
        ('[{"train": ["a"], "val": ["b"], "unlabeled": ["/a/b"]}]', "has the case '/a/b', which is not a file name"),
        ('[{"train": ["a"], "val": ["b"], "left_out": ["b"]}]', 'Case b is in "val" and again in "left_out"'),
        ('[{"train": ["a"], "val": ["b"], "left_out": "u"}]', "list of cases \"left_out\", but it is 'u'"),
        ('[{"train": ["a"], "val": [".."]}]', "has the case '..', which is not a file name"),
    ],
)
def test_a_file_that_cannot_be_trusted(tmp_path, text, message):
    file = tmp_path / "splits_final.json"
    file.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_fold(file, 0)


@pytest.fixture
def both_files(tmp_path, monkeypatch):
    files = []
    for root in ("raw", "preprocessed"):
        monkeypatch.setenv(f"nnUNet_{root}", str(tmp_path / root))
        files.append(tmp_path / root / "Dataset502_X" / "splits_final.json")
        files[-1].parent.mkdir(parents=True)
    return files


FOLD = {"train": ["a", "b"], "val": ["c"], "unlabeled": ["d"]}


@pytest.mark.parametrize("there", [(), (0,), (1,), (0, 1)])
def test_the_raw_file_holds_where_there_is_no_preprocessed_one(both_files, there, monkeypatch):
    for number in there:
        both_files[number].write_text(json.dumps([FOLD]))
    assert splits_in_force("Dataset502_X") == (both_files[max(there)] if there else None)
    monkeypatch.delenv("nnUNet_raw")
    assert splits_in_force("Dataset502_X") == (both_files[1] if 1 in there else None)


@pytest.mark.parametrize(
    ("copy", "says"),
    [
        ([{**FOLD, "train": ["b", "a"]}], None),
        ([FOLD, {"train": ["d"], "val": ["c"]}], None),  # nnU-Net allows the copy further folds
        ([{"train": ["a", "b", "d"], "val": ["c"]}], 'case d is in "unlabeled", and in "train"'),
        ([{"train": ["a", "b"], "val": ["c"]}], 'case d is in "unlabeled", and in no list'),
        ([{**FOLD, "val": ["c", "d"]}], 'case d is in "unlabeled", and in "unlabeled" and "val"'),
        ([], 'case a is in "train", and in no list'),
    ],
)
def test_two_files_that_disagree_are_named(both_files, copy, says):
    raw, preprocessed = both_files
    raw.write_text(json.dumps([FOLD]))
    preprocessed.write_text(json.dumps(copy))
    if says is None:
        assert splits_in_force("Dataset502_X") == preprocessed
        return
    with pytest.raises(ValueError, match=r"Fold 0 of .* is another one in .*: copy the file that is meant") as error:
        splits_in_force("Dataset502_X")
    for part in (str(raw), str(preprocessed), says):
        assert part in str(error.value)


def test_scans_of_validation_subjects_are_held_out_unless_they_are_trained_on():
    """With fold all, every subject is in both."""
    subjects = {"a": "1", "a_un": "1", "b": "2", "b_un": "2", "t": "3", "t_un": "3", "n_un": "4"}
    description = dataset({case: [0] for case in subjects}, subjects)
    unlabeled = [case for case in subjects if case.endswith("_un")]
    assert held_out_scans(description, ["a"], ["b"], ["t"], unlabeled) == ["b_un", "t_un"]
    assert held_out_scans(description, ["a", "b"], ["a", "b"], ["t"], unlabeled) == ["t_un"]
