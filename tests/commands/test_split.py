"""nnunet_cmc split: the files it writes and the table it prints."""

import argparse
import json

import numpy as np
import pytest

from nnunet_cmc.commands import split


def run(*words):
    parser = argparse.ArgumentParser()
    split.add_arguments(parser)
    return split.run(parser.parse_args([str(word) for word in words]))


@pytest.fixture
def dataset(make_dataset):
    """Ten labelled cases with both modalities, five with CT alone, three unlabelled ones with MR alone."""
    one = np.ones((2, 2, 2), np.int16)
    cases = {f"both{i}": ({0: one, 1: one}, one) for i in range(10)}
    cases |= {f"ct{i}": ({0: one}, one) for i in range(5)}
    cases |= {f"un{i}": ({1: one}, None) for i in range(3)}
    return make_dataset(cases)


@pytest.mark.parametrize("name", ["1", "Dataset001_Test"])
def test_one_fold_for_each_fraction(dataset, capsys, name):
    outcome = run("-d", name, "--labeled", 0.25, 1.0, "--val", 0.2, "--seed", 4)
    splits = json.loads((dataset / "splits_final.json").read_text())
    sizes = [{key: len(cases) for key, cases in fold.items()} for fold in splits]
    assert sizes == [{"train": 3, "val": 3, "unlabeled": 9}, {"train": 12, "val": 3}]
    said = capsys.readouterr().out
    assert [line.split() for line in said.splitlines()[:7]] == [
        ["fold", "part", "cases", "CT", "MR"],
        ["0", "labelled", "3", "3", "2"],
        ["unlabelled", "12", "9", "9"],
        ["validation", "3", "3", "2"],
        ["1", "labelled", "12", "12", "8"],
        ["unlabelled", "3", "0", "3"],
        ["validation", "3", "3", "2"],
    ]
    assert outcome.numbers == {"dataset": "Dataset001_Test", "folds": splits, "held_out_scans": [[], []]}
    assert outcome.written == [dataset / "splits_final.json"]
    assert "Plan and preprocess again" not in said


@pytest.mark.parametrize("kind", [("--labeled", 0.5, 1), ("--folds", 4)])
def test_unlabelled_scans_of_validation_and_test_subjects(make_dataset, write_volume, capsys, kind):
    one = np.ones((2, 2, 2), np.int16)
    cases = {f"p{i}_CT": ({0: one}, one) for i in range(8)} | {f"p{i}_MR": ({1: one}, None) for i in range(12)}
    folder = make_dataset({**cases, "m0": ({1: one}, one), "m1": ({1: one}, one)})
    write_volume(folder / "imagesTs" / "p9_CT_0000.nii.gz", one)
    content = json.loads((folder / "dataset.json").read_text())
    content["cmc"]["subjects"] = {case: case.split("_")[0] for case in [*cases, "p9_CT"]}
    (folder / "dataset.json").write_text(json.dumps(content))

    run("-d", 1, *kind)
    assert all("left_out" not in fold for fold in json.loads((folder / "splits_final.json").read_text()))
    assert "They are trained on; --inductive leaves them out." in capsys.readouterr().out

    run("-d", 1, *kind, "--inductive")
    for fold in json.loads((folder / "splits_final.json").read_text()):
        of_val = [case.replace("CT", "MR") for case in fold["val"] if case.startswith("p")]
        assert fold["left_out"] == sorted([*of_val, "p9_MR"])
    said = capsys.readouterr().out
    assert "They are left out." in said


def test_cross_validation(dataset):
    (dataset / "imagesTr" / "._both0_0000.nii.gz").write_bytes(b"\0\5\x16\7")
    run("-d", 1, "--folds", 5)
    splits = json.loads((dataset / "splits_final.json").read_text())
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(
        [*(f"both{i}" for i in range(10)), *(f"ct{i}" for i in range(5))]
    )
    assert all("unlabeled" not in fold for fold in splits)


def test_files_beside_the_scans(dataset):
    """Those that macOS adds are passed over; what looks like a scan is named."""
    (dataset / "imagesTr" / "._ct0_0000.nii.gz").touch()
    run("-d", 1, "--folds", 2)
    splits = json.loads((dataset / "splits_final.json").read_text())
    assert not [case for fold in splits for case in fold["train"] if case.startswith(".")]
    (dataset / "imagesUn" / "un0_0000.nii").touch()
    with pytest.raises(ValueError, match=r"un0_0000\.nii looks like a scan, but is no file that ends in \.nii\.gz"):
        run("-d", 1, "--folds", 2)


def test_a_case_without_a_label(dataset):
    (dataset / "labelsTr" / "both3.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"Case both3 of imagesTr has no label .*both3.nii.gz \(1 in all\)"):
        run("-d", 1, "--labeled", 1.0)
    assert not (dataset / "splits_final.json").exists()


def test_refreshes_the_preprocessed_copy_and_says_what_is_stale(dataset, nnunet_folders, capsys):
    preprocessed = nnunet_folders / "preprocessed" / dataset.name
    preprocessed.mkdir()
    (preprocessed / "splits_final.json").write_text("[]")
    (preprocessed / "dataset_fingerprint.json").write_text("{}")
    run("-d", 1, "--labeled", 0.5)
    assert (preprocessed / "splits_final.json").read_bytes() == (dataset / "splits_final.json").read_bytes()
    assert "Plan and preprocess again" in capsys.readouterr().out


def test_reads_presence_from_the_voxels_where_dataset_json_is_silent(make_dataset, capsys):
    one = np.ones((2, 2, 2), np.int16)
    cases = {f"ct{i}": ({0: one}, one) for i in range(5)} | {"mr0": ({1: one}, one)}
    folder = make_dataset(cases, declare=False)
    for seed in range(5):
        run("-d", 1, "--labeled", 0.1, "--seed", seed)
        (fold,) = json.loads((folder / "splits_final.json").read_text())
        assert "mr0" in fold["train"]  # the only MR scan must neither validate nor lose its label
    assert ["0", "labelled", "2", "1", "1"] in [line.split() for line in capsys.readouterr().out.splitlines()]


def test_case_without_any_modality(make_dataset):
    one = np.ones((2, 2, 2), np.int16)
    cases = {f"c{i}": ({0: one, 1: one}, one) for i in range(5)} | {"blank": ({0: 0 * one}, one)}
    make_dataset(cases, declare=False)
    with pytest.raises(ValueError, match=r"Case blank .*zero everywhere in every channel"):
        run("-d", 1, "--labeled", 0.5)


def test_a_volume_that_is_truncated(make_dataset):
    one = np.random.default_rng(0).integers(1, 99, (9, 9, 9)).astype(np.int16)
    dataset = make_dataset({f"c{i}": ({0: one, 1: one}, one) for i in range(5)}, declare=False)
    file = dataset / "imagesTr" / "c3_0001.nii.gz"
    file.write_bytes(file.read_bytes()[:-200])
    with pytest.raises(ValueError, match=rf"Case c3: {file} cannot be read \(.*: copy or write it again"):
        run("-d", 1, "--labeled", 0.5)
    assert not (dataset / "splits_final.json").exists()


def test_modality_without_a_labelled_case(make_dataset):
    one = np.ones((2, 2, 2), np.int16)
    make_dataset({f"c{i}": ({0: one}, one) for i in range(5)} | {"u": ({1: one}, None)})
    for options in (["--labeled", 0.5], ["--folds", 2]):
        with pytest.raises(ValueError, match=r"Modality MR \(channel 1\) has no labelled case"):
            run("-d", 1, *options)


def test_datasets_that_are_not_there(dataset, monkeypatch):
    with pytest.raises(ValueError, match=r"There is no dataset 9"):
        run("-d", 9, "--labeled", 1)
    with pytest.raises(ValueError, match=r"There is no .*Dataset009_Y/dataset.json: convert"):
        run("-d", "Dataset009_Y", "--labeled", 1)
    for file in (dataset / "imagesTr").iterdir():
        file.unlink()
    with pytest.raises(ValueError, match=r"imagesTr holds no case"):
        run("-d", 1, "--labeled", 1)
    monkeypatch.delenv("nnUNet_raw")
    with pytest.raises(ValueError, match=r"nnUNet_raw is not set"):
        run("-d", 1, "--labeled", 1)


def test_a_disk_that_is_full_or_cannot_be_written_to(dataset, full_disk, ordinary_user):
    run("-d", 1, "--labeled", 1)
    before = (dataset / "splits_final.json").read_bytes()
    with full_disk(100), pytest.raises(OSError) as error:
        run("-d", 1, "--labeled", 0.5)
    assert error.value.filename == str(dataset / "splits_final.json")
    dataset.chmod(0o555)
    with pytest.raises(PermissionError):
        run("-d", 1, "--labeled", 0.5)
    dataset.chmod(0o755)
    assert (dataset / "splits_final.json").read_bytes() == before
    assert not list(dataset.glob(".*"))


def test_one_case_only(make_dataset):
    one = np.ones((2, 2, 2), np.int16)
    dataset = make_dataset({"a": ({0: one, 1: one}, one)})
    with pytest.raises(ValueError, match=r"No subject can be used for validation: with 1 subject.*fold all"):
        run("-d", 1, "--labeled", 1)
    assert not (dataset / "splits_final.json").exists()


@pytest.mark.parametrize("words", [[], ["--labeled", "0.5", "--folds", "5"], ["--labeled", "half"]])
def test_either_fractions_or_folds(words, capsys):
    with pytest.raises(SystemExit):
        run("-d", 1, *words)
    assert "--labeled" in capsys.readouterr().err


def test_folds_choose_their_validation_subjects_themselves(dataset):
    with pytest.raises(
        ValueError, match="--folds validates each of its K folds on one K-th of the subjects: leave out --val"
    ):
        run("-d", 1, "--folds", 2, "--val", 0.5)


def test_cases_that_dataset_json_lists(dataset):
    """nnU-Net's key ``dataset``: files that lie elsewhere."""
    (dataset / "imagesTr").rename(dataset / "scans")
    content = json.loads((dataset / "dataset.json").read_text())
    content["dataset"] = {
        f"both{i}": {
            "images": [f"scans/both{i}_000{channel}.nii.gz" for channel in (0, 1)],
            "label": f"labelsTr/both{i}.nii.gz",
        }
        for i in range(10)
    }
    (dataset / "dataset.json").write_text(json.dumps(content))
    run("-d", 1, "--folds", 5)
    splits = json.loads((dataset / "splits_final.json").read_text())
    assert sorted(case for fold in splits for case in fold["val"]) == sorted(content["dataset"])
