"""Which cases a fold has, where no copy of the split, or none at all, is there."""

import re
from pathlib import Path


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
    labeled, unlabeled, *_ = trainer.fold_cases.samplers(None)
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
    labeled, unlabeled, _, val = trainer.fold_cases.samplers(None)
    assert unlabeled is None
    assert sorted([*labeled.cases, *val]) == [f"case{i}" for i in range(6)]
    assert len(val) == 2
    assert {int(case[-1]) // 2 for case in val}.isdisjoint(int(case[-1]) // 2 for case in labeled.cases)
    said = r"neither in nnUNet_preprocessed \(.*\) nor in nnUNet_raw \(not set\): making 3 folds by subject"
    assert re.search(said, log_of(trainer))
