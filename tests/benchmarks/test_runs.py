"""The glioma benchmark's runs: those that are offered, and what several of them share."""

import json
import sys
import time
from typing import ClassVar

import pytest
import run as run_script
from arrangements import Subjects
from experiment import Bench, finish_all
from made_up_records import records_of
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from records import save
from sources import AMOS, LGG
from systems import PLANS, TABLES, needs_registered

from nnunet_cmc.trainers import registry
from nnunet_cmc.trainers.recipes import RECIPES


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
