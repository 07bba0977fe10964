"""The glioma benchmark's subjects, folds, scans and pseudo-labels, on generated scans."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from arrangements import Subjects, fold_number, folds, make_scans, put_cases
from pseudo_labels import fold_with_pseudo_labels, make_dataset, put_unlabeled
from sources import AMOS, ARRANGEMENTS, LGG

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
