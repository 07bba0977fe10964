"""Along which axes scans are mirrored."""

from pathlib import Path

import pytest
from short_trainers import short


def log_of(trainer) -> str:
    return Path(trainer.log_file).read_text()


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
