"""The glioma benchmark's scripts: arrangements, folds, records, intervals and tables, on generated scans."""

import json
from types import SimpleNamespace

import numpy as np
import overfitting
import pytest
import report
import SimpleITK as sitk
from arrangements import ARRANGEMENTS, SEEDS, Subjects, fold_number, folds, make_scans, put_cases
from intervals import paired_difference
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
from pictures import dice_of_subjects
from pseudo_labels import folds_with_pseudo_labels, make_dataset, put_unlabeled
from records import load, save
from sources import AMOS, LGG
from systems import (
    CANDIDATES,
    PLANS,
    PROFILES,
    STOCK_PLANNERS,
    TABLES,
    Run,
    choose,
    finalists,
    table_runs,
)
from table import Results
from term_shares import shares

from nnunet_cmc.trainers import registry


@pytest.fixture(scope="module")
def subjects(data):
    return Subjects(data, LGG)


@pytest.mark.parametrize("dataset", LGG.datasets)
def test_every_fold_keeps_subjects_apart_and_shows_few_labels(dataset, subjects):
    made = folds(dataset, subjects)
    assert len(made) == len(ARRANGEMENTS) * len(LGG.labeled) * SEEDS
    for fold in made:
        parts = [{case.split("_")[0] for case in fold[part]} for part in ("train", "val", "unlabeled")]
        assert not parts[0] & parts[1]
        assert not parts[0] & parts[2]
        assert not parts[1] & parts[2]
        assert not set.union(*parts) & set(subjects.test)
        assert all(parts[:2])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_labels_are_nested_and_half_of_each_sequence(subjects, seed):
    drawn = [set(subjects.labeled(fraction, seed)) for fraction in LGG.labeled]
    assert [len(labeled) for labeled in drawn] == list(LGG.labeled.values())
    assert drawn[0] < drawn[1] < drawn[2]
    assert not drawn[2] & set(subjects.validation)
    for labeled in drawn:
        assert 2 * sum(subjects.kept(subject) == "FLAIR" for subject in labeled) == len(labeled)
    if seed == 0:
        assert drawn[0] == set(subjects.pool[:8])
    else:
        assert drawn[0] != set(subjects.labeled(0.1, seed - 1))


def test_stock_and_ours_see_the_same_labels(subjects):
    for arrangement in ARRANGEMENTS:
        number = fold_number(LGG, arrangement, 0.1, 1)
        ours, theirs = (folds(name, subjects)[number] for name in (arrangement, f"stock_{arrangement}"))
        for part in ("train", "val"):
            assert {c.split("_")[0] for c in ours[part]} == {c.split("_")[0] for c in theirs[part]}
    alone = folds("FLAIR", subjects)[fold_number(LGG, "unpaired", 0.1, 0)]["train"]
    assert len(alone) == 4
    assert all(subjects.kept(subject) == "FLAIR" for subject in alone)


def test_scans_move_with_their_labels(data, subjects, tmp_path):
    make_scans(data, tmp_path, subjects, 4.0)
    image = {part: sitk.ReadImage(str(tmp_path / part / "test00.nii.gz"), sitk.sitkFloat32)
             for part in ("T1post", "labels", "moved_T1post", "moved_labels")}  # fmt: skip
    array = {part: sitk.GetArrayFromImage(one) for part, one in image.items()}
    bright = array["moved_T1post"] > 55
    moved = array["moved_labels"] > 0
    assert 2 * (bright & moved).sum() / (bright.sum() + moved.sum()) > 0.9
    centre = [np.mean(np.argwhere(array[part] > 0), 0) * 2 for part in ("labels", "moved_labels")]
    assert np.linalg.norm(centre[1] - centre[0]) == pytest.approx(4.0, abs=1.0)
    assert image["moved_T1post"].GetSpacing() == image["T1post"].GetSpacing()


def test_new_cases(data, subjects, tmp_path):
    make_scans(data, tmp_path / "scans", subjects, 4.0)

    def put(moved, given, channels):
        put_cases(LGG, tmp_path / "scans", ["test00"], moved, given, channels, tmp_path / "cases", tmp_path / "labels")
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


def a_record(**values):
    record = {
        "dataset": "lgg", "arrangement": "registered", "shift_mm": 0.0, "trainer": "CMCTrainerPaper_cmcbudget",
        "recipe": "",
        "planner": "CMCPlannerTiny", "channels": "both", "labels": 0.1, "seed": 0, "test_input": "both",
        "profile": "cpu",
        "dice": 50.0, "assd": 3.0, "validation_dice": 50.0, "dice_by_subject": [40.0, 60.0], "selected": True,
    }  # fmt: skip
    return record | values


def test_a_rerun_replaces_its_record(tmp_path):
    file = tmp_path / "results.json"
    save([a_record(), a_record(seed=1)], file)
    save([a_record(dice=70.0)], file)
    assert sorted(record["dice"] for record in load(file)) == [50.0, 70.0]


def candidate_records(candidate, seed, validation_dice, test_dice):
    trainer, planner = candidate
    return [
        a_record(
            trainer=f"{trainer}_cmcbudget",
            planner=planner or "CMCPlannerTiny",
            seed=seed,
            test_input=given,
            validation_dice=validation_dice,
            dice=test_dice,
        )
        for given in ("FLAIR", "T1post", "both")
    ]


def test_the_candidate_is_chosen_by_validation_alone():
    profile = PROFILES["cpu"]
    dice = {CANDIDATES[0]: 40.0, CANDIDATES[1]: 50.0, CANDIDATES[2]: 45.0}
    records = [
        record
        for candidate, validation in dice.items()
        for record in candidate_records(candidate, 0, validation, 90.0 if validation == 40.0 else 10.0)
    ]
    with pytest.raises(ValueError, match="no validation Dice of CMCTrainerPaper with CMCPlannerTiny"):
        finalists(records[:-1], profile)
    best, other = finalists(records, profile)
    assert (best, other) == (CANDIDATES[1], CANDIDATES[2])
    with pytest.raises(ValueError, match="run the table finalists"):
        choose(records, profile)
    for seed in (1, 2):
        records += candidate_records(best, seed, 20.0, 99.0) + candidate_records(other, seed, 60.0, 1.0)
    assert choose(records, profile) == [other, best]


@pytest.mark.parametrize("table", sorted(set(TABLES)))
def test_what_is_offered_can_be_trained(table):
    for profile in PROFILES.values():
        for run in table_runs(table, profile, 1, profile.candidates):
            assert run.planner in PLANS
            registry.trainer_class(f"{run.trainer}_cmcbudget")
            assert run.planner in STOCK_PLANNERS or recursive_find_python_class("", run.planner, "")


def test_numbers_of_datasets_are_not_shared():
    numbers = [*LGG.datasets.values(), *AMOS.datasets.values()]
    assert len(set(numbers)) == len(numbers)
    assert max(numbers) < 1000


def test_every_table_has_runs_with_names_of_their_own():
    for table in TABLES:
        runs = table_runs(table, PROFILES["cpu"], 3, [("CMCTrainerPaper", "")])
        assert len({run.key for run in runs}) == len(runs) > 0
    headline = table_runs("headline", PROFILES["cpu"], 3, [("CMCTrainerPaper", "")])
    assert len(headline) == 3 * 3 * 4


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
    make_dataset(tmp_path / "teacher", tmp_path / "predicted", tmp_path / "student")
    labels = tmp_path / "student" / "labelsTr"
    assert [sitk.ReadImage(str(labels / f"{case}.nii.gz"))[0, 0, 0] for case in ("a", "b")] == [1, 0]
    assert json.loads((tmp_path / "student" / "dataset.json").read_text())["name"] == "student"
    assert folds_with_pseudo_labels([{"train": ["a"], "val": ["c"], "unlabeled": ["b"]}]) == [
        {"train": ["a", "b"], "val": ["c"]}
    ]


def test_a_teacher_of_pseudo_labels_was_trained_before():
    for run in table_runs("others", PROFILES["cpu"], 1):
        if run.recipe == "pseudo-labels twice":
            assert run.teacher.recipe == "pseudo-labels once"
            assert run.teacher.teacher.recipe == ""
            assert run.teacher.teacher.teacher is None


def test_intervals():
    """Against a closed form: equal seeds leave the subjects' spread, sd / sqrt(n) * 1.96."""
    rng = np.random.default_rng(0)
    by_subject = rng.normal(5, 10, 100)
    difference = paired_difference(np.stack([by_subject] * 3), np.zeros((3, 100)))
    assert difference.mean == pytest.approx(by_subject.mean())
    assert (difference.high - difference.low) / 2 == pytest.approx(1.96 * by_subject.std() / 10, rel=0.05)
    assert difference.is_certain
    assert not paired_difference([[5.0, 5.0], [-1.0, -1.0]], np.zeros((2, 2))).is_certain


def test_one_seed_shows_no_difference():
    """However alike its subjects are: other seeds may be on the other side."""
    difference = paired_difference([[60.0, 61.0]], [[50.0, 51.0]])
    assert not difference.is_certain
    assert str(difference) == "+10.0 [+10.0, +10.0]; seeds +10.0 (none: one seed)"


def test_shares_of_the_gradient(tmp_path):
    shared = tmp_path / "shared.csv"
    shared.write_text("alpha,gradient/supervised/encoder,gradient/csc/encoder\n0.5,2,4\n")
    assert shares(shared, "csc") == [[100.0]]
    names = ["alpha", "beta", *(f"gradient/{term}/encoder {m}" for term in ("supervised", "csc", "cac")
                                for m in ("FLAIR", "T1post"))]  # fmt: skip
    epochs = [[0.01, 0.1, 2.0, 4.0, 20.0, 8.0, 5.0, 1.0], [0.1, 0.01, 1.0, 1.0, 1.0, 3.0, 2.0, 5.0]]
    file = tmp_path / "progress.csv"
    file.write_text("\n".join(",".join(map(str, line)) for line in [names, *epochs]))
    np.testing.assert_allclose(shares(file, "csc"), [[10, 10], [2, 30]])
    np.testing.assert_allclose(shares(file, "cac"), [[25, 2], [2.5, 5]])


def test_pictures_are_of_the_glioma_and_of_the_headline():
    run = Run("registered", "CMCTrainerPaper", "CMCPlannerTiny")
    records = [
        a_record(**other, dice_by_subject=[1.0])
        for other in (
            {"dataset": "amos_synthetic"}, {"seed": 1}, {"test_input": "FLAIR"}, {"arrangement": "misaligned"},
            {"labels": 0.2}, {"planner": "CMCPlannerResEnc"},
        )
    ]  # fmt: skip
    assert dice_of_subjects([*records, a_record()], run, "CMCTrainerPaper_cmcbudget") == [40.0, 60.0]


def test_stock_is_given_its_better_model():
    stock = {"trainer": "nnUNetTrainer_cmcbudget", "planner": "ExperimentPlanner"}
    results = Results(
        [
            a_record(**stock, test_input="both", dice_by_subject=[10.0, 20.0]),
            a_record(**stock, channels="FLAIR", test_input="FLAIR", dice_by_subject=[30.0, 40.0]),
            a_record(**stock, test_input="T1post", dice_by_subject=[0.0, 1.0]),
            a_record(dice_by_subject=[99.0, 99.0]),
        ]
    )
    assert results.better_stock("both", "dice_by_subject") == {0: [30.0, 40.0]}
    assert results.better_stock("T1post", "dice_by_subject") == {0: [0.0, 1.0]}


def test_the_page_is_made_of_records(tmp_path, monkeypatch):
    stock = {"trainer": "nnUNetTrainer_cmcbudget", "planner": "ExperimentPlanner"}
    other = {
        "transductive_dice": 40.0, "transductive_by_subject": [30.0, 50.0], "iterations": 300, "seconds": 9,
        "device": "CPU", "commit": "abc",
    }  # fmt: skip
    rows = [
        a_record(**other, **system, arrangement=arrangement, shift_mm=shift, seed=seed, test_input=given,
                 dice=dice + seed, dice_by_subject=[dice + seed, dice - 1])
        for arrangement, shift in (("registered", 0.0), ("unpaired", 0.0), ("misaligned", 5.0))
        for seed in (0, 1)
        for given in ("FLAIR", "T1post", "both")
        for system, dice in (({}, 60.0), (stock, 50.0))
    ]  # fmt: skip
    rows.append(a_record(**other, dataset="amos_synthetic", test_input="CT"))
    save(rows, tmp_path / "results.json")
    output = tmp_path / "results.md"
    monkeypatch.setattr("sys.argv", ["report.py", "--results", str(tmp_path / "results.json"), "--output", str(output)])
    report.main()
    text = output.read_text()
    assert "{{" not in text
    assert "| registered | CMCTrainerPaper, CMCPlannerTiny | 2 | 60.5 ± 0.7 | 60.5 ± 0.7 | 60.5 ± 0.7 | 60.5 |" in text
    assert "| misaligned | mean | +10.0 [+10.0, +10.0]; seeds +10.0, +10.0 |" in text
    assert "*Not run yet.*" in text  # tables without records say so
    assert (tmp_path / "results.png").is_file()


def test_steps_against_overfitting_are_found_by_nnunets_commands(monkeypatch):
    found = []

    def entry_point():
        found.extend(recursive_find_python_class("", step, "") for step in overfitting.STEPS)

    select = {"select": lambda name: [SimpleNamespace(load=lambda: entry_point)]}
    nnunet = SimpleNamespace(entry_points=SimpleNamespace(**select))
    monkeypatch.setattr(overfitting, "distribution", lambda name: nnunet)
    monkeypatch.setattr(registry, "trainer_class", registry.trainer_class)  # restored after the test
    with pytest.raises(SystemExit):
        overfitting.command("nnUNetv2_train")
    assert [(cls.recipe.mirrored_axes, cls.recipe.batch_dice, cls.rate) for cls in found] == [
        ((2,), None, 4e-3), ((0, 1, 2), None, 4e-3), ((0, 1, 2), False, 4e-3), ((0, 1, 2), False, 1e-3),
    ]  # fmt: skip
