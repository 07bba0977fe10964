"""``nnunet_cmc compare`` with stand-ins for nnU-Net's commands, which leave the files that those would leave."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pandas as pd
import pytest
import stand_in
from plans import make_plans
from stand_in import CMC, LABEL, StandIn

from nnunet_cmc.commands import compared_systems, comparison_runs
from nnunet_cmc.commands.main import main
from nnunet_cmc.commands.subcommands import CommandError
from nnunet_cmc.evaluation import paired_statistics, report

save_report = report.save_report
SCAN = np.arange(1.0, 1001.0, dtype=np.float32).reshape(10, 10, 10)
SUP, TEACHER = "SupTrainer", "MeanTeacherTrainer"
STOCK = "nnUNetTrainer:nnUNetPlans"


@pytest.fixture
def nnunet(make_dataset, nnunet_folders, write_volume, monkeypatch):
    """A dataset of two folds, planned for ours and for nnU-Net's trainers, and a stand-in for nnU-Net's commands."""
    monkeypatch.setattr("nnunetv2.configuration.default_num_processes", 1)
    cases = {case: ({0: SCAN, 1: 2 * SCAN}, LABEL) for case in "abcd"}
    raw = make_dataset({**cases, "only": ({1: SCAN}, LABEL)})
    splits = [{"train": ["c", "d"], "val": ["a", "b", "only"]}, {"train": ["a", "b", "only"], "val": ["c", "d"]}]
    (raw / "splits_final.json").write_text(json.dumps(splits))
    preprocessed = nnunet_folders / "preprocessed" / raw.name
    for name in ("CMCNNUNetPlans", "nnUNetPlans"):
        plans = make_plans(plans_name=name)
        if name == "nnUNetPlans":
            plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "PlainConvUNet"
        (preprocessed / f"{name}_3d_fullres").mkdir(parents=True)
        (preprocessed / f"{name}.json").write_text(json.dumps(plans))
    commands = StandIn(nnunet_folders / "results" / raw.name)
    monkeypatch.setattr(comparison_runs, "run_logged", commands)
    monkeypatch.setattr(paired_statistics, "_RESAMPLES", 20)
    monkeypatch.setattr(report, "save_report", lambda folder, *_, **__: folder / "report.html")  # takes a second
    return commands


def compare(tmp_path, *trainers, folds=("0",), more=()):
    trained = ["-d", "1", "--device", "cpu", "--seed", "7", "-np", "1", "--trainers", *trainers, "--folds", *folds]
    return main(["compare", *trained, "-o", str(tmp_path / "out"), *more])


def test_trains_predicts_evaluates_and_does_nothing_twice(nnunet, tmp_path, capsys):
    assert compare(tmp_path, SUP, CMC, STOCK, more=("--disable_tta",)) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Evaluated on validation cases (fold 0: 3), since there are no labelled test cases" in printed
    assert len(re.findall(r"0 +to do, time unknown  to do, time unknown", printed)) == 3
    assert "Left: 3 trainings, 3 predictions; time unknown.\n" in printed
    said = [f"SupTrainer, fold 0: {left} epochs left, about {2 * left} min" for left in (4, 3, 2)]
    said.append("SupTrainer, fold 0: 1 epoch left, about 2 min")
    lines = [line.partition("] ")[2] for line in printed.splitlines()]
    assert [line for line in lines if re.search("epochs? left, about", line)][:4] == said
    left = re.findall("SupTrainer, fold 0: (.) cases? left, about 0 s", printed)
    assert "".join(left) == "654321"
    # SupTrainer's prediction tells about those of the others
    left = r"Left: 2 trainings, 2 predictions, about \d+ s of work and 2 steps of unknown length, one at a time\."
    assert re.search(rf"\n\[.*\] {left}\n", printed)
    assert "] Nothing is left to train or to predict." in printed
    train, predicted = (
        [" ".join(command) for command in nnunet.commands if command[0] == f"nnUNetv2_{what}"]
        for what in ("train", "predict")
    )
    assert train == [
        f"nnUNetv2_train Dataset001_Test 3d_fullres 0 -tr {trainer} -p {plans} -device cpu"
        for trainer, plans in ((SUP, "CMCNNUNetPlans"), (CMC, "CMCNNUNetPlans"), STOCK.split(":"))
    ]
    assert all("-device cpu --disable_tta -npp 1 -nps 1 -i" in command for command in predicted)

    table = pd.read_csv(tmp_path / "out" / "comparison.csv")
    table = table.set_index(["prediction", "modalities", "class", "case"]).sort_index()
    overlap = {
        shift: 2 * ((LABEL == 1) & (np.roll(LABEL, shift, 0) == 1)).sum() / (2 * (LABEL == 1).sum())
        for shift in range(3)
    }
    for better, name in enumerate((SUP, CMC)):
        assert table.loc[name, "CT", "liver"]["Dice"].tolist() == pytest.approx([overlap[2 - better]] * 2)
        assert table.loc[name, "MR", "liver"].index.tolist() == ["a_MR", "b_MR", "only_MR"]
        assert table.loc[name, "CT+MR", "liver"]["Dice"].tolist() == pytest.approx([overlap[1 - better]] * 2)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {
        *(f"comparison.{ending}" for ending in ("md", "tex", "json", "csv")), "settings.json",
        "evaluated", "logs", "predictions", SUP, CMC, "nnUNetTrainer",
    }  # fmt: skip
    assert "| SupTrainer " in printed
    assert "CT: liver" not in printed, "a table of all classes is too wide"
    assert f"Written to {tmp_path / 'out'}: {SUP}/summary.json, " in printed
    assert "Difference to SupTrainer" in printed

    before, nnunet.commands = (tmp_path / "out" / "comparison.json").read_text(), []
    assert compare(tmp_path, SUP, CMC, STOCK, more=("--disable_tta",)) == 0
    assert not nnunet.commands
    assert (tmp_path / "out" / "comparison.json").read_text() == before
    assert "Nothing is left to train or to predict." in capsys.readouterr().out
    assert compare(tmp_path, SUP, CMC, STOCK, more=("--disable_tta", "--json")) == 0
    result = json.loads(capsys.readouterr().out)
    assert {str(tmp_path / "out" / "comparison.csv"), str(tmp_path / "out" / "report.html")} < {*result.pop("written")}
    assert result == json.loads(before)


def test_folds_are_pooled_and_earlier_runs_tell_the_time(nnunet, tmp_path, capsys):
    assert compare(tmp_path, SUP, CMC) == 0
    capsys.readouterr()
    for name, seconds in {SUP: 80, CMC: 160}.items():  # for 8 cases; fold 0 has 7, fold 1 has 6
        folder = tmp_path / "out" / "predictions" / f"{name}__CMCNNUNetPlans__3d_fullres" / "fold_0"
        (folder / "plans.json").touch()
        begun = (folder / "plans.json").stat().st_mtime
        for number, file in enumerate(sorted(folder.glob("*.nii.gz")), 1):
            os.utime(file, (begun, begun + seconds * number / 8))
    nnunet.meeting = threading.Barrier(2)
    assert compare(tmp_path, SUP, CMC, folds=("0", "1"), more=("--jobs", "2")) == 0
    printed = capsys.readouterr().out
    for minutes in (1, 2):
        assert len(re.findall(rf"1 +to do, about 10 s +to do, about {minutes} min", printed)) == 1
    assert "Left: 2 trainings, 2 predictions, about 3 min of work, 2 at a time.\n" in printed
    assert "(fold 0: 3, fold 1: 2)" in printed
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["predictions"][CMC]
    assert {group: found[group]["Dice"]["liver"]["n"] for group in found} == {"CT": 4, "MR": 5, "CT+MR": 4}
    assert found["CT"]["Dice"]["average"]["against_first"]["n"] == 4


def test_a_trial_of_each_system_tells_the_time_where_nothing_was_trained(nnunet, tmp_path, capsys):
    nnunet.trials = 3600, 60
    assert compare(tmp_path, SUP, CMC, STOCK, more=("--disable_tta",)) == 0
    # fold 0 has 7 cases: 2 of them from CT, MR and both, and one from MR
    assert "Left: 3 trainings, 3 predictions, about 3 h 21 min of work, one at a time.\n" in capsys.readouterr().out
    trials = [" ".join(command[1:]) for command in nnunet.commands if "-m" in command]
    what = "-m nnunet_cmc.commands.trial_training Dataset001_Test 3d_fullres 0"
    assert trials == [
        f"{what} -tr {trainer} -p {plans} -device cpu --disable_tta"
        for trainer, plans in ((SUP, "CMCNNUNetPlans"), (CMC, "CMCNNUNetPlans"), STOCK.split(":"))
    ]
    nnunet.commands = []
    assert compare(tmp_path, SUP, CMC, folds=("0", "1"), more=("--disable_tta",)) == 0
    assert "-m" not in [word for command in nnunet.commands for word in command], "epochs of fold 0 tell"


def test_a_trial_that_fails_is_not_repeated_for_other_folds(nnunet, tmp_path):
    assert compare(tmp_path, SUP, folds=("0", "1")) == 0
    (trial,) = [command for command in nnunet.commands if "-m" in command]
    assert trial[5] == "0"


def test_folds_are_numbers_however_they_are_written(nnunet, tmp_path):
    assert compare(tmp_path, SUP, folds=("00", "0")) == 0
    assert [command[3] for command in nnunet.commands if command[0] == "nnUNetv2_train"] == ["0"]
    assert compare(tmp_path, SUP, folds=("000",)) == 0
    assert sum(command[0] == "nnUNetv2_train" for command in nnunet.commands) == 1


def test_a_test_set_that_comes_later_is_predicted(nnunet, tmp_path, capsys, write_volume, nnunet_folders):
    assert compare(tmp_path, SUP) == 0
    raw = nnunet_folders / "raw" / "Dataset001_Test"
    write_volume(raw / "imagesTs" / "x_0000.nii.gz", SCAN)
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    capsys.readouterr()
    assert compare(tmp_path, SUP) == 0, capsys.readouterr().err
    assert "Left: 0 trainings, 1 prediction; time unknown." in capsys.readouterr().out


def test_test_cases_where_there_are_labels(nnunet, tmp_path, capsys, write_volume, nnunet_folders):
    raw = nnunet_folders / "raw" / "Dataset001_Test"
    for case in ("x", "y_0000.z"):  # the channel's number is the last one
        write_volume(raw / "imagesTs" / f"{case}_0000.nii.gz", SCAN)
        write_volume(raw / "labelsTs" / f"{case}.nii.gz", LABEL)
    assert compare(tmp_path, SUP, CMC, folds=("0", "1")) == 0, capsys.readouterr().err
    printed = capsys.readouterr().out
    assert "Evaluated on the 2 test cases of" in printed
    assert "which each model of the folds 0, 1 predicts from each" in printed
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["predictions"][CMC]["CT"]["Dice"]["liver"]
    assert (found["n"], found["against_first"]["n"]) == (4, 2), "two predictions of each of two patients"
    nnunet.commands = []
    assert compare(tmp_path, SUP, CMC, folds=("0", "1")) == 0
    assert not nnunet.commands


def test_a_system_that_refuses_becomes_a_row_that_says_why(nnunet, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(report, "save_report", save_report)
    nnunet.failures[SUP] = CommandError("a long traceback", "no labelled case has several modalities: use another.")
    assert compare(tmp_path, SUP, CMC, TEACHER) == 0
    printed = capsys.readouterr().out
    why = "SupTrainer has no result: (fold 0) no labelled case has several modalities: use another."
    assert why in printed
    table = (tmp_path / "out" / "comparison.md").read_text()
    rows = [line for line in table.splitlines() if line.startswith("| SupTrainer")]
    assert len(rows) == 2, "of Dice and ASSD"
    assert set(rows[0].replace(" ", "").split("|")[2:-1]) == {"-"}
    assert "Difference to CMCTrainer" in printed
    for file in ("comparison.md", "comparison.tex", "report.html"):
        assert why in (tmp_path / "out" / file).read_text()
    assert json.loads((tmp_path / "out" / "comparison.json").read_text())["missing"] == {SUP: why.split(": ", 1)[1]}


def test_a_crash_does_not_stop_the_others_but_is_an_error(nnunet, tmp_path, capsys):
    nnunet.failures[CMC] = CommandError("nnUNetv2_train failed with exit code -9; the end of log.txt:\n")
    assert compare(tmp_path, SUP, CMC, TEACHER) == 1
    shown = capsys.readouterr()
    assert "1 run failed, such as CMCTrainer, fold 0: see" in shown.err
    assert "CMCTrainer has no result: (fold 0) a command failed, see" in shown.out
    assert [command[4:6] for command in nnunet.commands if "predict" in command[0]]
    nnunet.failures, nnunet.commands = {}, []
    assert compare(tmp_path, SUP, CMC, TEACHER) == 0
    assert [command[0] for command in nnunet.commands if "-m" not in command] == ["nnUNetv2_train", "nnUNetv2_predict"]

    nnunet.failures = {trainer: CommandError("", "the scans are flat.") for trainer in ("CMCTrainer_noCSC",)}
    assert compare(tmp_path, "CMCTrainer_noCSC") == 1
    message = "No system has a result, such as CMCTrainer_noCSC, (fold 0) the scans are flat: correct that"
    assert message in capsys.readouterr().err


def test_what_is_begun_goes_on_and_what_is_trained_anew_is_predicted_anew(nnunet, tmp_path):
    fold = nnunet.results / f"{SUP}__CMCNNUNetPlans__3d_fullres" / "fold_0"
    fold.mkdir(parents=True)
    (fold / "checkpoint_latest.pth").touch()
    assert compare(tmp_path, SUP, CMC) == 0
    assert [command[-1] == "--c" for command in nnunet.commands if command[0] == "nnUNetv2_train"] == [True, False]
    nnunet.commands = []
    later = time.time() + 60
    os.utime(fold / "checkpoint_final.pth", (later, later))
    assert compare(tmp_path, SUP, CMC) == 0
    assert [(command[0], SUP in command) for command in nnunet.commands] == [("nnUNetv2_predict", True)]


@pytest.mark.parametrize(
    ("trainers", "more", "sentence"),
    [
        (["CMCTrainer_fast"], (), "There is no trainer CMCTrainer_fast: take one of CMCTrainer, "),
        ([SUP, CMC, SUP], (), "The row SupTrainer with the plans CMCNNUNetPlans is there twice"),
        ([SUP], ("-p", "CMCTinyPlans"), "CMCTinyPlans.json, for the trainer SupTrainer: plan and preprocess"),
        (["nnUNetTrainer"], (), "nnUNetTrainer cannot train the plans CMCNNUNetPlans of a CMC planner: name nnU-Net's"),
        ([f"{SUP}:nnUNetPlans"], (), "SupTrainer cannot train the plans"),
        ([SUP], ("-c", "3d_lowres"), "have no configuration 3d_lowres"),
        ([SUP], ("--folds", "one"), "A fold is a number from 0 on, or all, but not one"),
        ([SUP], ("--folds", "5"), "has no fold 5"),
        ([SUP], ("-d", "2"), "There is no dataset 2"),
    ],
)  # fmt: skip
def test_what_is_refused_before_anything_starts(nnunet, tmp_path, capsys, trainers, more, sentence):
    assert compare(tmp_path, *trainers, more=more) == 1
    assert sentence in capsys.readouterr().err
    assert not nnunet.commands
    assert not nnunet.results.exists()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            "Could not find requested nnunet trainer Supertrainer in nnunetv2",
            "There is no trainer Supertrainer, neither",
        ),
        ("operator torchvision::nms does not exist", "all of nnU-Net's, and one failed (operator torchvision::nms"),
    ],
)
def test_a_trainer_that_nnunet_does_not_find(nnunet, tmp_path, capsys, monkeypatch, error, sentence):
    def find(name):
        raise RuntimeError(error)

    monkeypatch.setattr(compared_systems, "recursive_find_trainer_class_by_name", find)
    assert compare(tmp_path, "Supertrainer") == 1
    assert sentence in capsys.readouterr().err


def test_data_that_are_not_preprocessed(nnunet, tmp_path, capsys, nnunet_folders):
    (nnunet_folders / "preprocessed" / "Dataset001_Test" / "CMCNNUNetPlans_3d_fullres").rmdir()
    assert compare(tmp_path, SUP) == 1
    assert "run nnUNetv2_preprocess -d 1 -plans_name CMCNNUNetPlans" in capsys.readouterr().err


def test_models_of_another_split_are_not_evaluated_on_what_they_were_trained_on(nnunet, tmp_path, capsys):
    nnunet.cases = {"train": ["c", "d"], "val": ["a", "b", "only"], "unlabeled": [], "left_out": [], "imagesUn": ["u"]}
    assert compare(tmp_path, SUP) == 0
    assert compare(tmp_path, SUP) == 0, "the split is the same"
    file = nnunet.results.parents[1] / "raw" / nnunet.results.name / "splits_final.json"
    splits = json.loads(file.read_text())
    splits[0] = {"train": ["a", "d"], "val": ["b", "c", "only"]}
    file.write_text(json.dumps(splits))
    shutil.rmtree(tmp_path / "out")
    assert compare(tmp_path, SUP) == 1
    said = capsys.readouterr().err
    assert 'fold_0 was trained on another split than fold 0 is now: case a was in "val", and is in "train", so' in said


def test_a_folder_of_another_comparison(nnunet, tmp_path, capsys):
    assert compare(tmp_path, SUP) == 0
    assert compare(tmp_path, SUP, more=("--disable_tta", "--seed", "8")) == 1
    assert "out is of another comparison, with other seed, mirroring (" in capsys.readouterr().err


def test_a_call_that_was_refused_does_not_fix_the_settings_of_its_folder(nnunet, tmp_path, capsys, write_volume):
    raw = nnunet.results.parents[1] / "raw" / nnunet.results.name
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    assert compare(tmp_path, SUP, more=("--seed", "8")) == 1
    assert "Case x of" in capsys.readouterr().err
    write_volume(raw / "imagesTs" / "x_0000.nii.gz", SCAN)
    assert compare(tmp_path, SUP) == 0, capsys.readouterr().err


def test_a_refused_call_leaves_no_cases_of_its_dataset(nnunet, tmp_path, capsys):
    """Another dataset with cases of the same names is not evaluated on afterwards."""
    assert compare(tmp_path, SUP) == 0
    for folder in (nnunet.results.parents[1] / part / nnunet.results.name for part in ("raw", "preprocessed")):
        shutil.copytree(folder, folder.with_name("Dataset002_Other"))
    assert compare(tmp_path, SUP, folds=("1",), more=("-d", "2")) == 1
    assert "out is of another comparison, with other dataset (" in capsys.readouterr().err
    assert compare(tmp_path, SUP, folds=("0", "1")) == 0
    references = (tmp_path / "out" / "evaluated").glob("fold_*/labels/*")
    assert {file.resolve().parents[1].name for file in references} == {"Dataset001_Test"}


def test_a_scan_that_is_replaced_is_predicted_anew(nnunet, tmp_path, write_volume, monkeypatch):
    raw = nnunet.results.parents[1] / "raw" / nnunet.results.name
    for folder, volume in {"imagesTs/x_0000": SCAN, "labelsTs/x": LABEL}.items():
        write_volume(raw / f"{folder}.nii.gz", volume)
    assert compare(tmp_path, SUP) == 0
    nnunet.commands = []
    file = raw / "imagesTs" / "x_0000.nii.gz"
    before = file.stat()
    write_volume(file, SCAN[:9])
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL[:9])
    os.utime(file, (before.st_atime, before.st_mtime - 1000))  # as that of a file that is moved there
    monkeypatch.setattr(stand_in, "LABEL", LABEL[:9])
    assert compare(tmp_path, SUP) == 0
    assert [command[0] for command in nnunet.commands] == ["nnUNetv2_predict"]


def test_a_trainer_with_several_plans_names_them_in_its_rows(nnunet, tmp_path, capsys, nnunet_folders):
    preprocessed = nnunet_folders / "preprocessed" / "Dataset001_Test"
    (preprocessed / "Others_3d_fullres").mkdir()
    (preprocessed / "Others.json").write_text(json.dumps(make_plans(plans_name="Others")))
    assert compare(tmp_path, SUP, f"{SUP}:Others", CMC) == 0, capsys.readouterr().err
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())["predictions"]
    assert list(found) == ["SupTrainer CMCNNUNetPlans", "SupTrainer Others", "CMCTrainer"]


def test_sigterm_ends_the_commands_and_starts_no_more(nnunet, tmp_path, monkeypatch):
    begun = []

    def sleep(command, log, environment, line, started=lambda process: None):
        if "-m" in command:
            raise CommandError("refused")
        begun.append(command)
        process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], process_group=0)
        started(process)
        os.kill(os.getpid(), signal.SIGTERM)
        assert process.wait(30) == -signal.SIGTERM
        raise CommandError("terminated")

    monkeypatch.setattr(comparison_runs, "run_logged", sleep)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit, match="143"):
        compare(tmp_path, SUP, CMC)
    assert len(begun) == 1
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_ends_a_trial(nnunet, tmp_path, monkeypatch):
    def terminate(command, log, environment, line):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)

    monkeypatch.setattr(comparison_runs, "run_logged", terminate)
    with pytest.raises(SystemExit, match="143"):
        compare(tmp_path, SUP)
