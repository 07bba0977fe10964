"""The glioma benchmark's scripts: folds, arrangements, runs, records and the page, on generated scans."""

import json
import re
import sys
import time
from dataclasses import replace
from functools import partial
from typing import ClassVar

import numpy as np
import pytest
import report
import run as run_script
import SimpleITK as sitk
from arrangements import Subjects, fold_number, folds, make_scans, put_cases
from experiment import Bench, finish_all
from intervals import paired_difference
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from PIL import Image
from pseudo_labels import fold_with_pseudo_labels, make_dataset, put_unlabeled
from records import load, save
from sources import AMOS, ARRANGEMENTS, LGG
from systems import DEFAULT, GPU, PLANS, TABLES, Run, needs_registered, stock
from table import Results, better_stock, by_system

from nnunet_cmc.trainers import registry
from nnunet_cmc.trainers.recipes import RECIPES

SEEDS = range(LGG.folds)


@pytest.fixture(scope="module", params=SEEDS)
def subjects(data, request):
    return Subjects(data, LGG, request.param)


def test_each_subject_is_tested_once(data):
    tested = [subject for seed in SEEDS for subject in Subjects(data, LGG, seed).test]
    split = json.loads((data / "split.json").read_text())
    assert sorted(tested) == sorted(split["train_order"] + split["test"])
    assert len(tested) == 100
    assert {len(Subjects(data, LGG, seed).test) for seed in SEEDS} == {20}


def test_seed_0_is_as_the_split_says(data):
    split = json.loads((data / "split.json").read_text())
    order, first = split["train_order"], Subjects(data, LGG, 0)
    assert first.fold == 0
    assert first.test == split["test"]
    assert first.validation == order[-8:]
    assert first.labeled(0.1) == order[:8]
    assert first.unlabeled(0.1) == order[8:-8]
    assert [first.kept(subject) for subject in order[:4]] == ["FLAIR", "T1post", "FLAIR", "T1post"]


def test_subjects_are_those_of_the_seed_alone(subjects, data):
    again = Subjects(data, LGG, subjects.fold)
    assert (again.test, again.pool, again.validation) == (subjects.test, subjects.pool, subjects.validation)
    groups = [subjects.test, subjects.validation, subjects.labeled(0.1), subjects.unlabeled(0.1)]
    assert [len(group) for group in groups] == [20, 8, 8, 64]
    assert len(set().union(*groups)) == 100
    other = Subjects(data, LGG, (subjects.fold + 1) % LGG.folds)
    assert not set(other.test) & set(subjects.test)
    assert other.labeled(0.1) != subjects.labeled(0.1)
    assert all(other.kept(subject) == subjects.kept(subject) for subject in (*subjects.train, *subjects.test))


def test_half_of_each_group_keeps_each_sequence(subjects):
    labeled = [subjects.labeled(fraction) for fraction in LGG.labeled]
    assert [len(group) for group in labeled] == list(LGG.labeled.values())
    assert set(labeled[0]) < set(labeled[1]) < set(labeled[2])
    for group in (*labeled, subjects.validation, subjects.test):
        assert 2 * sum(subjects.kept(subject) == "FLAIR" for subject in group) == len(group)


def test_one_fold_tests_all_seeds(data):
    one, other = (Subjects(data, AMOS, seed) for seed in (0, 1))
    assert one.test == other.test
    assert one.labeled(0.1) != other.labeled(0.1)
    assert not set(other.train) & set(other.test)


@pytest.mark.parametrize("dataset", [name for name in LGG.datasets if "pseudo" not in name])
def test_every_experiment_keeps_subjects_apart_and_shows_few_labels(dataset, subjects):
    made = folds(dataset, subjects)
    assert len(made) == len(ARRANGEMENTS) * len(LGG.labeled)
    for fold in made:
        parts = [{case.split("_")[0] for case in fold[part]} for part in ("train", "val", "unlabeled")]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert not set.union(*parts) & set(subjects.test)
        assert all(parts[:2])


def test_stock_and_ours_see_the_same_labels(subjects):
    for arrangement in ARRANGEMENTS:
        number = fold_number(LGG, arrangement, 0.1)
        ours, theirs = (folds(name, subjects)[number] for name in (arrangement, f"stock_{arrangement}"))
        for part in ("train", "val"):
            assert {c.split("_")[0] for c in ours[part]} == {c.split("_")[0] for c in theirs[part]}
    alone = folds("FLAIR", subjects)[fold_number(LGG, "unpaired", 0.1)]["train"]
    assert len(alone) == 4
    assert all(subjects.kept(subject) == "FLAIR" for subject in alone)


@pytest.fixture(scope="module")
def scans(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scans")
    subjects = Subjects(data, LGG, 0)
    subjects.pool, subjects.validation, subjects.test = subjects.pool[:1], [], subjects.test[:1]
    make_scans(data, folder, subjects, 4.0)
    return folder


def test_scans_move_with_their_labels(scans):
    image = {part: sitk.ReadImage(str(scans / part / "test00.nii.gz"), sitk.sitkFloat32)
             for part in ("T1post", "labels", "moved_T1post", "moved_labels")}  # fmt: skip
    array = {part: sitk.GetArrayFromImage(one) for part, one in image.items()}
    bright = array["moved_T1post"] > 55
    moved = array["moved_labels"] > 0
    assert 2 * (bright & moved).sum() / (bright.sum() + moved.sum()) > 0.9
    centre = [np.mean(np.argwhere(array[part] > 0), 0) * 2 for part in ("labels", "moved_labels")]
    assert np.linalg.norm(centre[1] - centre[0]) == pytest.approx(4.0, abs=1.0)
    assert image["moved_T1post"].GetSpacing() == image["T1post"].GetSpacing()


def test_new_cases(data, scans, tmp_path):
    def put(moved, given, channels):
        put_cases(LGG, scans, ["test00"], moved, given, channels, tmp_path / "cases", tmp_path / "labels")
        arrays = {file.name: sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
                  for file in sorted((tmp_path / "cases").iterdir())}  # fmt: skip
        return arrays, sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "labels" / "test00.nii.gz")))

    own = sitk.GetArrayFromImage(sitk.ReadImage(str(data / "labels" / "test00.nii.gz")))
    cases, labels = put(True, "both", "both")
    assert list(cases) == ["test00_0000.nii.gz", "test00_0001.nii.gz"]
    assert (labels == own).all()
    cases, labels = put(True, "T1post", "both")
    assert list(cases) == ["test00_0001.nii.gz"]
    assert not (labels == own).all()
    cases, _ = put(False, "T1post", "stacked")
    assert not cases["test00_0000.nii.gz"].any()
    assert cases["test00_0001.nii.gz"].any()
    cases, _ = put(False, "T1post", "T1post")
    assert list(cases) == ["test00_0000.nii.gz"]


def records_of(run, dice, given=None):
    """Made-up records: ``dice`` of each test subject with every input, or with one."""
    return [
        run.description | {
            "fold": run.seed, "test_input": name, "dice": float(np.mean(dice)), "dice_by_subject": list(dice),
            "validation_dice": 50.0, "iterations": 300, "seconds": 60, "device": "CPU", "commit": "abc",
        }
        for name in run.inputs
        if given in (None, name)
    ]  # fmt: skip


def test_a_rerun_replaces_its_record(tmp_path):
    file, run = tmp_path / "results.json", Run("registered", DEFAULT)
    (old,), (other,) = records_of(run, [50.0], "both"), records_of(Run("registered", DEFAULT, seed=1), [50.0], "both")
    save([old, other], file)
    save([old | {"dice": 70.0}], file)
    assert sorted(record["dice"] for record in load(file)) == [50.0, 70.0]


def test_another_machine_goes_on_with_what_has_no_records(tmp_path, monkeypatch):
    first, half, *_ = runs = [run for run in TABLES["headline"] if run.seed == 0]
    file, asked = tmp_path / "results.json", []
    save([*records_of(first, [50.0]), *records_of(half, [50.0], half.inputs[0])], file)
    monkeypatch.setattr(run_script, "finish_all", lambda runs, *_: asked.extend(runs) or 0)
    arguments = ["--data", "d", "--work", "w", "--tables", "headline", "--seeds", "1", "--results", str(file)]
    for more, expected in (([], runs), (["--missing"], runs[1:])):
        asked.clear()
        monkeypatch.setattr(sys, "argv", ["run.py", *arguments, *more])
        run_script.main()
        assert asked == expected


def test_the_tables_have_the_rows_that_were_asked_for():
    headline = TABLES["headline"]
    assert len(set(headline)) == 5 * 3 * (1 + 3 + 3)
    assert {run.recipe for run in headline} == {"", "pseudo-labels twice"}
    assert {(run.seed, run.profile.total_iterations) for run in TABLES["longer"]} == {(s, 900) for s in range(3)}
    systems = {run.trainer for run in TABLES["systems"]}
    assert len(systems) == 2 + 9
    assert {"registered", "unpaired"} == {run.arrangement for run in TABLES["parts"]}
    assert not [run for run in TABLES["systems"] if run.arrangement == "unpaired" and needs_registered(run.trainer)]
    assert needs_registered("EFCDTrainer")
    assert {run.shift for run in TABLES["misalignment"]} == {0.0, 2.5, 5.0, 10.0}
    assert {LGG.labeled[run.labels] for run in TABLES["labels"]} == {8, 16, 72}
    unpaired = {run.channels for run in TABLES["amos"] if run.stock and run.arrangement == "unpaired"}
    assert unpaired == {"both", "CT", "MR"}


@pytest.mark.parametrize(
    "run", {run.trainer: run for runs in TABLES.values() for run in runs}.values(), ids=lambda run: run.trainer
)
def test_what_is_offered_can_be_trained(run):
    assert run.stock or run.trainer in RECIPES
    registry.trainer_class(run.budgeted)
    assert run.planner in PLANS
    assert run.stock or recursive_find_python_class("", run.planner, "")


def test_numbers_of_datasets_are_not_shared():
    numbers = [*LGG.datasets.values(), *AMOS.datasets.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 1000
    runs = [run for table in TABLES.values() for run in table]
    assert all(each.dataset in each.source.datasets for run in runs for each in (run, run.teacher) if each)


def test_runs_have_names_of_their_own():
    for runs in TABLES.values():
        assert len({(run.key, run.shift) for run in runs}) == len(runs) > 0


def test_pseudo_labels_take_the_place_of_hidden_ones(tmp_path):
    def label(value):
        return sitk.GetImageFromArray(np.full((2, 2, 2), value, np.uint8))

    (tmp_path / "teacher" / "imagesTr").mkdir(parents=True)
    (tmp_path / "teacher" / "labelsTr").mkdir()
    (tmp_path / "predicted").mkdir()
    (tmp_path / "teacher" / "dataset.json").write_text('{"name": "teacher", "numTraining": 2}')
    for case in ("a", "b"):
        sitk.WriteImage(label(9), str(tmp_path / "teacher" / "imagesTr" / f"{case}_0000.nii.gz"))
        sitk.WriteImage(label(1), str(tmp_path / "teacher" / "labelsTr" / f"{case}.nii.gz"))
    put_unlabeled(tmp_path / "teacher", ["b"], tmp_path / "cases")
    assert [file.name for file in (tmp_path / "cases").iterdir()] == ["b_0000.nii.gz"]
    sitk.WriteImage(label(0), str(tmp_path / "predicted" / "b.nii.gz"))
    make_dataset(tmp_path / "teacher", tmp_path / "predicted", ["b"], tmp_path / "student")
    labels = tmp_path / "student" / "labelsTr"
    assert [sitk.ReadImage(str(labels / f"{case}.nii.gz"))[0, 0, 0] for case in ("a", "b")] == [1, 0]
    assert json.loads((tmp_path / "student" / "dataset.json").read_text())["name"] == "student"
    with pytest.raises(RuntimeError, match=r"a\.nii\.gz"):  # else its hidden label would be learned
        make_dataset(tmp_path / "teacher", tmp_path / "predicted", ["a"], tmp_path / "other")
    fold = {"train": ["a"], "val": ["c"], "unlabeled": ["b"]}
    assert fold_with_pseudo_labels(fold) == {"train": ["a", "b"], "val": ["c"]}


class Untrained(Bench):
    """A bench whose trainings take a moment and leave an empty checkpoint."""

    trained: ClassVar[list] = []

    def _make_raw(self, run):
        self.raw(run).mkdir(exist_ok=True)

    def _preprocess(self, run):
        (self.folders["preprocessed"] / self._name(run)).mkdir()

    def evaluate(self, run, given, seconds):
        return run.description | {"test_input": given, "seconds": seconds}

    def command(self, log, name, *arguments, seed=0):
        assert name == "nnUNetv2_train"
        time.sleep(0.05)
        (model,) = [each for run in self.all for each in [self.model(run)] if log == f"{run.key}-train"]
        self.trained.append(model)
        model.mkdir(parents=True)
        (model / "checkpoint_final.pth").touch()


def test_what_runs_share_is_trained_once(data, tmp_path, monkeypatch):
    """Also when they run at the same time: a teacher, and FLAIR, which stays where it is when T1post moves."""
    headline = [run for run in TABLES["headline"] if run.stock and run.seed == 1 and run.arrangement != "unpaired"]
    monkeypatch.setattr(Untrained, "trained", [])
    scans = tmp_path / "cpu" / "lgg-5mm" / "scans"
    scans.mkdir(parents=True)
    (scans / "complete").touch()
    teachers = [run.teacher for run in headline if run.recipe]
    Untrained.all = [*headline, *teachers]
    found = {}
    failed = finish_all(
        headline[::-1],
        lambda run: Untrained(data, tmp_path, run).finish(run),
        6,
        lambda run, its: found.update({run: its}),
    )
    assert not failed
    assert len(Untrained.trained) == len(set(Untrained.trained)) == 15, "two of registered scans, two moved, one FLAIR"
    assert all(its[0]["seconds"] > 0.15 for run, its in found.items() if run.recipe), "three trainings"
    (file,) = tmp_path.glob("cpu/lgg-5mm/seed1/preprocessed/*pseudo2_registered_both/splits_final.json")
    subjects = Subjects(data, LGG, 1)
    (fold,) = json.loads(file.read_text())
    assert fold == {"train": sorted(subjects.pool), "val": sorted(subjects.validation)}


def test_stock_is_given_its_better_model():
    both, flair, t1post = stock("registered")
    found = [
        *records_of(both, [10.0, 20.0], "both"),
        *records_of(both, [5.0, 5.0], "FLAIR"),
        *records_of(both, [0.0, 1.0], "T1post"),
        *records_of(flair, [30.0, 40.0]),
        *records_of(t1post, [0.0, 0.5]),
        *records_of(Run("registered", DEFAULT), [99.0, 99.0]),
    ]
    systems = by_system(Results(found), TABLES["headline"])
    assert better_stock(systems, "registered", "both").tolist() == [[30.0, 40.0]]
    assert better_stock(systems, "registered", "T1post").tolist() == [[0.0, 1.0]]


def test_systems_are_compared_on_the_seeds_that_all_have_of_an_arrangement():
    ours, (theirs, *_) = Run("registered", DEFAULT), stock("registered")
    elsewhere = Run("unpaired", DEFAULT)
    found = [
        record for run in (ours, theirs) for seed in (0, 2) for record in records_of(replace(run, seed=seed), [1.0])
    ]
    found += [*records_of(replace(ours, seed=1), [9.0]), *records_of(replace(elsewhere, seed=3), [9.0])]
    systems = by_system(Results(found), TABLES["headline"])
    assert {run: its.seeds for run, its in systems.items()} == {ours: [0, 2], theirs: [0, 2], elsewhere: [3]}


def test_the_page_is_made_of_records(tmp_path, monkeypatch):
    """Of every run of every table: nnU-Net has 50, with pseudo-labels 62, ours 60 and a point more for each seed."""
    monkeypatch.setattr(report, "paired_difference", partial(paired_difference, draws=100))
    rows = []
    for run in {run for runs in TABLES.values() for run in runs} | {
        replace(run, profile=GPU) for run in TABLES["headline"]
    }:
        dice = (62.0 if run.recipe else 50.0) if run.stock else 60.0 + run.seed
        for given in run.inputs:
            lost = (given == "T1post") * (20.0 if run.stock else 5.0)
            rows += records_of(run, [dice - lost + 1, dice - lost - 1], given)
    save(rows, tmp_path / "results.json")
    report.write(tmp_path / "results.json")
    text = (tmp_path / "results.md").read_text()
    assert "{{" not in text
    assert "*Not run yet.*" not in text
    assert len(text.splitlines()) <= 250
    told = (
        "`CMCTrainer` minus nnU-Net is +17.0 points (registered, 5 of 5 seeds), +17.0 points (unpaired, 5 of 5 seeds)"
    )
    assert told in text.replace("\n", " ")
    assert "| registered | CMCTrainer | 5 | 62.0 ± 1.6 | 57.0 ± 1.6 | 62.0 ± 1.6 | 60.3 | 1.0 |" in text
    assert "| unpaired | nnU-Net, each alone, pseudo-labels twice | 5 | 62.0 ± 0.0 | 42.0 ± 0.0 |  |  | 1.0 |" in text
    (plain,) = re.findall(r"^\| registered \| nnU-Net \|.*$", text.split("## Three times")[0], re.MULTILINE)
    assert plain.startswith("| registered | nnU-Net | 5 | +12.0 [")
    (gain,) = re.findall(r"^\| 3 points above.*$", text.split("## Three times")[0], re.MULTILINE)
    assert gain.count("met: +17.0 [") == 3
    assert "met: 5.0 lost, nnU-Net 20.0" in text
    assert (tmp_path / "results.png").is_file()
    compared = (tmp_path / "comparison.md").read_text()
    assert "| unpaired | `UMMLTrainer` | 3 | 61.0 ± 1.0 | 56.0 ± 1.0 | 61.0 ± 1.0 | 59.3 | none (+0.0 [" in compared
    assert "| unpaired | `EFCDTrainer` |" not in compared, "it needs registered scans"


def test_one_seed_leaves_the_targets_open():
    """However far ahead the default is on its subjects."""
    rows = []
    for run in (run for run in TABLES["headline"] if run.seed == 0):
        dice = 50.0 if run.stock else 80.0
        rows += [record for given in run.inputs for record in records_of(run, [dice + 1, dice - 1], given)]
    text = report.targets(report.against(Results(rows), TABLES["headline"]))
    assert text.count("open: ") == 4 * 3
    assert "open: one seed (+30.0 [" in text
    assert "met: " not in text
    assert "missed" not in text


def test_each_nnunet_is_compared_on_all_seeds_that_it_shares_with_ours():
    """However few the other one has."""
    rows = []
    for run in TABLES["headline"]:
        if run.arrangement == "registered" and run.seed < (2 if run.recipe else 4):
            dice = (60.0 if run.recipe else 50.0) if run.stock else 70.0 + run.seed
            rows += [record for given in run.inputs for record in records_of(run, [dice + 1, dice - 1], given)]
    rivals = report.against(Results(rows), TABLES["headline"])
    found = {recipe: report.differences(rivals, "registered", recipe)["mean"] for recipe in report.AGAINST}
    assert [(each.mean, each.seeds) for each in found.values()] == [(21.5, 4), (10.5, 2)]


def test_a_page_without_records_says_so(tmp_path):
    report.write(tmp_path / "results.json")
    text = (tmp_path / "results.md").read_text()
    assert "{{" not in text
    assert "*Not run yet.*" in text
    assert "## 8 labelled subjects" not in text
    assert "Not run yet: *8 labelled subjects*, *Three times as long: 900 iterations*, *On a GPU" in text
    assert "Not run yet: *Measured*." in (tmp_path / "comparison.md").read_text()
    assert not (tmp_path / "results.png").exists()


@pytest.mark.parametrize("name", report.PAGES)
def test_the_pages_have_the_records(name):
    page = report.records.FILE.with_name(f"{name}.md").read_text(encoding="utf-8")
    assert page == report.pages(report.records.FILE)[name], "run benchmarks/evidence/report.py"


def test_the_picture_of_the_results_is_of_the_present_records():
    """``report.py`` writes into it what it was drawn from."""
    with Image.open(report.records.FILE.with_name("results.png")) as picture:
        drawn_from = picture.text["Source"]
    systems = report.by_system(Results(report.records.load()), TABLES["headline"])
    assert drawn_from == report.digest(systems), "run benchmarks/evidence/report.py"
