"""Which cases a fold has, where no copy of the split or none at all is there, and which axes are mirrored."""

import re
from pathlib import Path

import pytest
from short_trainers import short


def log_of(trainer) -> str:
    return Path(trainer.log_file).read_text()


def test_hidden_labels_of_the_raw_split_stay_hidden_without_a_preprocessed_one(registered, monkeypatch):
    """Plans that were moved from another dataset come without a copy of the split."""
    raw = registered.preprocessed.with_name("raw") / registered.folder.name
    raw.mkdir(parents=True)
    hidden = registered.hidden()
    (registered.folder / "splits_final.json").rename(raw / "splits_final.json")
    monkeypatch.setenv("nnUNet_raw", str(raw.parent))
    trainer = registered.trainer()
    trainer.initialize()
    labeled, unlabeled, _ = trainer.get_samplers()
    assert unlabeled.cases == hidden
    assert not {*labeled.cases} & {*hidden}
    assert f"Fold 0 of {raw / 'splits_final.json'}" in log_of(trainer)


def test_without_any_split_there_are_folds_by_subject_and_the_log_says_so(registered, monkeypatch):
    """However few labelled cases there are: nnU-Net's own folds are five, of cases, whosever they are."""
    (registered.folder / "splits_final.json").unlink()
    monkeypatch.delenv("nnUNet_raw", raising=False)
    registered.dataset_json["cmc"]["subjects"] = {f"case{i}": f"patient{i // 2}" for i in range(6)}
    trainer = registered.trainer()
    trainer.initialize()
    labeled, unlabeled, val = trainer.get_samplers()
    assert unlabeled is None
    assert sorted([*labeled.cases, *val]) == [f"case{i}" for i in range(6)]
    assert len(val) == 2
    assert {int(case[-1]) // 2 for case in val}.isdisjoint(int(case[-1]) // 2 for case in labeled.cases)
    said = r"neither in nnUNet_preprocessed \(.*\) nor in nnUNet_raw \(not set\): making 3 folds by subject"
    assert re.search(said, log_of(trainer))


@pytest.mark.parametrize(
    ("name", "sided", "axes"),
    [("CMCTrainerPaper", ["cube"], None), ("CMCTrainerPaper", [], (2,)),
     ("CMCTrainer", ["cube"], None), ("CMCTrainer", [], (0, 1, 2))],
)  # fmt: skip
def test_scans_are_mirrored_unless_a_class_has_a_side(registered, monkeypatch, name, sided, axes):
    looked_at = set()

    def sided_classes(dataset, axis):
        looked_at.update(dataset.identifiers)
        return [1] * len(sided)

    monkeypatch.setattr("nnunet_cmc.trainers.pair_trainer.sided_classes", sided_classes)
    trainer = registered.trainer(short(name))
    trainer.initialize()
    trainer.get_dataloaders()
    assert looked_at == {case for cases in trainer.do_split() for case in cases}, "as in all folds"
    assert trainer.inference_allowed_mirroring_axes == axes
    assert ("cube lie on one side of the body only" in log_of(trainer)) == bool(sided)


@pytest.mark.parametrize(("forward", "axes"), [([2, 0, 1], (0,)), ([1, 0, 2], (2,))])
def test_left_to_right_is_mirrored_where_the_plans_have_it(registered, monkeypatch, forward, axes):
    asked = []
    monkeypatch.setattr(
        "nnunet_cmc.trainers.pair_trainer.sided_classes", lambda dataset, axis: asked.append(axis) or []
    )
    backward = [forward.index(axis) for axis in range(3)]
    trainer = registered.trainer(short("CMCTrainerPaper"), transpose_forward=forward, transpose_backward=backward)
    trainer.initialize()
    trainer.get_dataloaders()
    assert trainer.inference_allowed_mirroring_axes == axes
    assert tuple(asked) == axes
