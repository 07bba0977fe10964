"""nnunet_cmc convert folders: its command line; what becomes of the files is tested with the converter."""

import argparse
import json

import numpy as np
import pytest

from nnunet_cmc.commands import convert


@pytest.fixture
def run(tmp_path, monkeypatch, nnunet_folders):
    """Runs ``convert WORDS`` in a folder for the sources."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")

    def run(*words):
        parser = argparse.ArgumentParser()
        convert.add_arguments(parser)
        convert.run(parser.parse_args(["folders", "-d", "12", "--name", "Two", *words]))
        return nnunet_folders / "raw" / "Dataset012_Two"

    return run


@pytest.fixture
def volumes(write_volume):
    """``volumes("ct/a", "ct/b", ...)`` writes tiny volumes into the current folder."""

    def volumes(*names, value=1):
        for name in names:
            write_volume(f"{name}.nii.gz", np.full((3, 3, 3), value, np.uint8))

    return volumes


def test_registered_and_its_summary(run, volumes, capsys):
    volumes("ct/a", "ct/b", "ct/u", "mr/a", "labels/a", "labels/b", "test/t")
    sources = ["--images", "CT=ct", "MR=mr/", "--labels", "labels", "--test-images", "CT=test"]
    folder = run(*sources, "--classes", "liver=1")
    dataset_json = json.loads((folder / "dataset.json").read_text())
    assert dataset_json["channel_names"] == {"0": "CT", "1": "MR"}
    assert dataset_json["labels"] == {"background": 0, "liver": 1}
    assert dataset_json["cmc"]["present_channels"] == {"a": [0, 1], "b": [0], "t": [0], "u": [0]}
    assert [line.split() for line in capsys.readouterr().out.splitlines()[-5:]] == [
        [str(folder)],
        ["cases", "CT", "MR"],
        ["labelled", "2", "2", "1"],
        ["unlabelled", "1", "1", "0"],
        ["test", "1", "1", "0"],
    ]


def test_separate_with_a_test_part(run, volumes):
    volumes("ct/a", "mr/b", "ct_l/a", "mr_l/b", "tct/c", "tct_l/c")
    labels = ["--labels", "CT=ct_l", "MR=mr_l", "--test-labels", "CT=tct_l"]
    folder = run("--images", "CT=ct", "MR=mr", *labels, "--test-images", "CT=tct", "--classes", "x=1")
    assert [file.name for file in (folder / "labelsTs").iterdir()] == ["c_CT.nii.gz"]
    assert sorted(file.name for file in (folder / "labelsTr").iterdir()) == ["a_CT.nii.gz", "b_MR.nii.gz"]


def test_star_patterns(run, volumes):
    volumes("all/a_t1", "all/a_seg")
    folder = run("--images", "T1=all/*_t1.nii.gz", "--labels", "all/*_seg.nii.gz", "--classes", "x=1")
    assert (folder / "labelsTr" / "a.nii.gz").is_file()


@pytest.mark.parametrize("wrap", [lambda labels: labels, lambda labels: {"labels": labels}])
def test_classes_from_json(run, volumes, tmp_path, wrap):
    volumes("ct/a", "l/a")
    (tmp_path / "classes.json").write_text(json.dumps(wrap({"background": 0, "left kidney": 1})))
    folder = run("--images", "CT=ct", "--labels", "l", "--classes", str(tmp_path / "classes.json"))
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "left kidney": 1}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", "ct"], r"--images takes NAME=FOLDER for each modality, such as .* but got 'ct'"),
        (["--images", "CT="], r"--images takes NAME=FOLDER .* but got 'CT='"),
        (["--images", "CT=ct", "CT=mr"], r"--images names CT twice"),
        (["--labels", "l", "m", "n"], r"--labels takes one folder .* but got 3 folders: put a path with a \* in"),
        (["--labels", "CT=l", "m"], r"--labels takes NAME=FOLDER .* but got 'm'"),
        (["--test-labels", "l"], r"There are test labels but no test images"),
        (["--classes", "liver"], r"--classes takes CLASS=VALUE, such as liver=1"),
        (["--classes", "liver=one"], r"--classes takes CLASS=VALUE"),
        (["--classes", "=1"], r"--classes takes CLASS=VALUE"),
        (["--classes", "a=1", "a=2"], r"--classes names a twice"),
        (["--classes", "broken.json"], r"broken.json is not JSON"),
        (["--classes", "list.json"], r"list.json must map the name of each class to its value"),
    ],
)
def test_words_that_make_no_sense(run, volumes, tmp_path, nnunet_folders, words, message):
    volumes("ct/a", "l/a")
    (tmp_path / "work" / "broken.json").write_text("{")
    (tmp_path / "work" / "list.json").write_text("[1]")
    options = {"--images": ["CT=ct"], "--labels": ["l"], "--classes": ["x=1"]} | {words[0]: words[1:]}
    with pytest.raises(ValueError, match=message):
        run(*(word for option, values in options.items() for word in [option, *values]))
    assert not list((nnunet_folders / "raw").iterdir())


def test_a_json_file_that_is_not_there(run, volumes):
    volumes("ct/a", "l/a")
    with pytest.raises(FileNotFoundError):
        run("--images", "CT=ct", "--labels", "l", "--classes", "none.json")


def test_help_shows_both_layouts(capsys):
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    with pytest.raises(SystemExit):
        parser.parse_args(["folders", "--help"])
    said = capsys.readouterr().out
    assert "--labels labels/" in said
    assert "--labels CT=ct_labels/ MR=mr_labels/" in said
