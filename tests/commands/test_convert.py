"""nnunet_cmc convert: its command line; what becomes of the files is tested with the converter."""

import argparse
import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK
from tiny_volumes import voxels_of

from nnunet_cmc.commands import convert
from nnunet_cmc.commands.main import main


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
    """``volumes("ct/a", "ct/b", ...)`` writes tiny volumes into the current folder, with 1 and 0 unless of a value."""

    def volumes(*names, value=None):
        for name in names:
            voxels = voxels_of(name, label=True) if value is None else np.full((4, 4, 4), value, np.uint8)
            write_volume(f"{name}.nii.gz", voxels)

    return volumes


def test_registered_and_its_summary(run, volumes, capsys):
    volumes("ct/a", "ct/b", "ct/u", "mr/a", "labels/a", "labels/b", "test/t")
    sources = ["--images", "CT=ct", "MR=mr/", "--labels", "labels", "--test-images", "CT=test"]
    folder = run(*sources, "--classes", "liver=1")
    dataset_json = json.loads((folder / "dataset.json").read_text())
    assert dataset_json["channel_names"] == {"0": "CT", "1": "MR"}
    assert dataset_json["labels"] == {"background": 0, "liver": 1}
    assert dataset_json["cmc"]["present_channels"] == {"a": [0, 1], "b": [0], "t": [0], "u": [0]}
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].startswith("Listing files"), "before the first bar, which comes when they are listed"
    assert printed[-1] == "Cases with several modalities, which are registered and fused: 1."
    assert [line.split() for line in printed[-5:-1]] == [
        ["cases", "subjects", "CT", "MR"],
        ["labelled", "2", "2", "2", "1"],
        ["unlabelled", "1", "1", "1", "0"],
        ["test", "1", "1", "1", "0"],
    ]


def test_the_summary_for_a_script(nnunet_folders, tmp_path, volumes, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    volumes("ct/a", "ct/u", "mr/a", "labels/a")
    sources = ["--images", "CT=ct", "MR=mr", "--labels", "labels", "--classes", "liver=1", "-np", "1"]
    assert main(["convert", "folders", "-d", "12", "--name", "Two", *sources, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "dataset": "Dataset012_Two",
        "cases": {
            "labelled": {"cases": 1, "subjects": 1, "CT": 1, "MR": 1},
            "unlabelled": {"cases": 1, "subjects": 1, "CT": 1, "MR": 0},
            "test": {"cases": 0, "subjects": 0, "CT": 0, "MR": 0},
        },
        "written": [str(nnunet_folders / "raw" / "Dataset012_Two")],
    }


def test_separate_with_a_test_part(run, volumes, capsys):
    volumes("ct/a", "mr/b", "ct_l/a", "mr_l/b", "tct/c", "tct_l/c")
    labels = ["--labels", "CT=ct_l", "MR=mr_l", "--test-labels", "CT=tct_l"]
    folder = run("--images", "CT=ct", "MR=mr", *labels, "--test-images", "CT=tct", "--classes", "x=1")
    assert "No case has several modalities: the scans are unpaired" in capsys.readouterr().out
    assert [file.name for file in (folder / "labelsTs").iterdir()] == ["c_CT.nii.gz"]
    assert sorted(file.name for file in (folder / "labelsTr").iterdir()) == ["a_CT.nii.gz", "b_MR.nii.gz"]


@pytest.mark.parametrize("words", [[], ["--link"]])
def test_scans_are_copied_unless_links_are_asked_for(run, volumes, words):
    volumes("ct/a", "labels/a")
    folder = run("--images", "CT=ct", "--labels", "labels", "--classes", "x=1", *words)
    assert (folder / "imagesTr" / "a_0000.nii.gz").samefile("ct/a.nii.gz") == bool(words)
    assert not (folder / "labelsTr" / "a.nii.gz").samefile("labels/a.nii.gz")


def test_values_that_are_merged_into_one_class(run, volumes):
    volumes("ct/a", "ct/b", "l/a")
    volumes("l/b", value=4)
    folder = run("--images", "CT=ct", "--labels", "l", "--classes", "tumour=1", "tumour=4")
    assert json.loads((folder / "dataset.json").read_text())["labels"] == {"background": 0, "tumour": 1}
    written = SimpleITK.ReadImage(str(folder / "labelsTr" / "b.nii.gz"))
    assert (SimpleITK.GetArrayFromImage(written) == 1).all()


def test_a_tilde_that_the_shell_leaves(run, volumes, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "work"))
    volumes("ct/a", "mr/a", "l/a")
    Path("c.json").write_text('{"liver": 1}')
    sources = ["--images", "CT=~/ct", "MR=~/mr/*.nii.gz", "--labels", "CT=~/l", "MR=~/l"]
    assert run(*sources, "--classes", "CT=~/c.json", "MR=~/c.json").is_dir()


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
        (["--images", "CT=ct", "CT=mr"], r"--images names CT twice: .* a name of its own, .* --ct"),
        (["--ct", "ct"], r"--ct names ct, which is none of the modalities CT: correct it"),
        (["--labels", "l", "m", "n"], r"--labels takes one folder .* but got 3: .* \* in quotes, .* merge"),
        (["--labels", "CT=l", "m"], r"--labels takes NAME=FOLDER .* but got 'm'"),
        (["--labels"], r"--images needs --labels"),
        (["--classes", "CT=none"], r"--classes takes CLASS=VALUE"),
        (["--classes", "CT=a.json", "liver=1"], r"or NAME=FILE for each modality, but not both"),
        (["--test-labels", "l"], r"There are test labels but no test images"),
        (["--classes", "liver"], r"--classes takes CLASS=VALUE, such as liver=1"),
        (["--classes", "liver=one"], r"--classes takes CLASS=VALUE"),
        (["--classes", "=1"], r"--classes takes CLASS=VALUE"),
        (["--classes", "a=1", "a=1"], r"Classes need values of their own"),
        (["--classes", "a.json=1", "CT=a.json", "CT=b.json"], r"--classes names CT twice: name it once"),
        (["--classes", "a=1,b=4"], r"--classes takes CLASS=VALUE, such as liver=1, .* but got 'a=1,b=4'"),
        (["--classes", "a=1.0"], r"--classes takes CLASS=VALUE, such as liver=1, .* but got 'a=1.0'"),
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
        run(*(word for option, values in options.items() if values for word in [option, *values]))
    assert not list((nnunet_folders / "raw").iterdir())


def test_classes_for_each_modality(run, volumes):
    volumes("ct/a", "mr/a", "ct_l/a")
    volumes("mr_l/a", value=9)
    Path("ct.json").write_text('{"liver": 1}')
    Path("mr.label").write_text('9 255 0 0 1 1 1 "liver"')
    sources = ["--images", "CT=ct", "MR=mr", "--labels", "CT=ct_l", "MR=mr_l"]
    folder = run(*sources, "--classes", "CT=ct.json", "MR=mr.label")
    label = SimpleITK.ReadImage(str(folder / "labelsTr" / "a_MR.nii.gz"))
    assert (SimpleITK.GetArrayFromImage(label) == 1).all()


def test_a_table_and_what_is_said_of_the_data(run, volumes):
    volumes("ct/a", "l/a")
    Path("scans.csv").write_text("subject,modality,image,label\na,CT,ct/a.nii.gz,l/a.nii.gz\n")
    told = ["--licence", "CC0", "--reference", "Doe et al."]
    content = json.loads((run("--table", "scans.csv", "--classes", "x=1", *told) / "dataset.json").read_text())
    assert (content["licence"], content["reference"]) == ("CC0", "Doe et al.")
    with pytest.raises(ValueError, match="A table names the labels and the test part itself"):
        run("--table", "scans.csv", "--classes", "x=1", "--labels", "l")


@pytest.mark.parametrize("table", [False, True])
def test_modalities_that_are_ct_under_another_name(run, volumes, capsys, table):
    volumes("early/a", "late/a", "mr/a", "l/a")
    modalities = ("early", "late", "mr")
    sources = ["--images", *(f"{modality}={modality}" for modality in modalities), "--labels", "l"]
    if table:
        rows = [f"a,{modality},{modality}/a.nii.gz,l/a.nii.gz" for modality in modalities]
        Path("scans.csv").write_text("\n".join(["subject,modality,image,label", *rows]))
        sources = ["--table", "scans.csv"]
    said = "Normalisation: early as CT (CTNormalization), late as CT (CTNormalization), mr not as CT (ZScore"
    run(*sources, "--classes", "x=1", "--ct", "early", "late", "--dry-run")
    assert said in capsys.readouterr().out
    content = json.loads((run(*sources, "--classes", "x=1", "--ct", "early", "late") / "dataset.json").read_text())
    assert content["channel_names"] == {"0": "CT", "1": "CT", "2": "mr"}
    assert content["cmc"]["modalities"] == ["early", "late", "mr"]
    printed = capsys.readouterr().out
    assert said in printed
    assert printed.splitlines()[-5].split() == ["cases", "subjects", "early", "late", "mr"]


def test_dry_run(run, volumes, capsys):
    volumes("ct/a", "l/a")
    folder = run("--images", "CT=ct", "--labels", "l", "--classes", "x=1", "--dry-run")
    assert not folder.exists()
    *_, last, pairing = capsys.readouterr().out.splitlines()
    assert last.split() == ["labelsTr/a.nii.gz", "<-", "l/a.nii.gz", "unchanged"]
    assert pairing.startswith("There is one modality: nnU-Net's own planners and trainers take it")


def test_a_dry_run_says_whether_scans_are_registered(run, volumes, capsys):
    volumes("ct/a", "mr/a", "l/a", "ml/a")
    images = ["--images", "CT=ct", "MR=mr", "--classes", "x=1", "--dry-run"]
    run(*images, "--labels", "l")
    assert capsys.readouterr().out.endswith("Cases with several modalities, which are registered and fused: 1.\n")
    run(*images, "--labels", "CT=l", "MR=ml")
    last = capsys.readouterr().out.splitlines()[-1]
    assert "No case has several modalities: the scans are unpaired" in last
    assert last.endswith("They are of 1 subject.")


@pytest.mark.parametrize("words", [[], ["--dry-run"]])
def test_unpaired_scans_without_a_common_name(run, volumes, capsys, words):
    volumes("flair/p1_FLAIR", "t1/p1_T1post", "fl/p1_FLAIR", "tl/p1_T1post")
    run("--images", "FLAIR=flair", "T1=t1", "--labels", "FLAIR=fl", "T1=tl", "--classes", "x=1", *words)
    last = capsys.readouterr().out.splitlines()[-1]
    assert "of 2 subjects. FLAIR and T1 have no name in common: all scans count as different patients. Where" in last


def test_a_path_with_an_equals_sign_is_no_name(run, volumes):
    volumes("x/k=1/ct/a", "x/k=1/l/a")
    Path("x/k=1/c.json").write_text('{"liver": 1}')
    folder = run("--images", "CT=x/k=1/ct", "--labels", "x/k=1/l", "--classes", "x/k=1/c.json")
    assert (folder / "labelsTr" / "a.nii.gz").is_file()


def test_labels_without_a_class(run, volumes):
    volumes("ct/a", "l/a", "ct/b")
    volumes("l/b", value=0)
    sources = ["--images", "CT=ct", "--labels", "l", "--classes", "x=1"]
    with pytest.raises(ValueError, match=r"l/b.nii.gz: shows no class at all.*--allow-empty-labels"):
        run(*sources)
    assert (run(*sources, "--allow-empty-labels") / "labelsTr" / "b.nii.gz").is_file()


@pytest.mark.parametrize(
    ("words", "function", "dataset_id", "options"),
    [
        (["amos"], "Dataset502_AMOS.convert_amos", 502, {"paper": False, "organs": None, "unlabeled": False}),
        (
            ["amos", "-d", "7", "--paper", "--unlabeled", "--organs", "liver", "right kidney", "--seed", "3"],
            "Dataset502_AMOS.convert_amos",
            7,
            {"paper": True, "organs": ["liver", "right kidney"], "unlabeled": True, "seed": 3},
        ),
        (
            ["mscmrseg", "--dry-run", "-np", "2"],
            "Dataset501_MSCMRSeg.convert_mscmrseg",
            501,
            {"layout": "separate", "sequences": ["LGE", "bSSFP"], "paper": False, "dry_run": True, "processes": 2},
        ),
        (
            ["mscmrseg", "--layout", "registered", "--sequences", "T2", "LGE", "--paper"],
            "Dataset501_MSCMRSeg.convert_mscmrseg",
            501,
            {"layout": "registered", "sequences": ["T2", "LGE"], "paper": True},
        ),
        (["tao", "--allow-empty-labels"], "Dataset503_TAO.convert_tao", 503, {"allow_empty_labels": True}),
    ],
)
def test_what_each_dataset_takes(monkeypatch, words, function, dataset_id, options):
    given = {}

    def convert_it(folder, dataset_id, **options):
        given.update(options, folder=folder, dataset_id=dataset_id)
        return Path("Dataset")

    monkeypatch.setattr(f"nnunet_cmc.dataset_conversion.{function}", convert_it)
    monkeypatch.setattr(convert, "_summarize", lambda folder: {})
    parser = argparse.ArgumentParser()
    convert.add_arguments(parser)
    convert.run(parser.parse_args([*words, "-i", "archive"]))
    assert given.items() >= {"folder": "archive", "dataset_id": dataset_id, **options}.items()


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
