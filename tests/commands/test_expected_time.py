import json
import os

import pytest

from nnunet_cmc.commands.expected_time import epochs_left, expected_seconds, seconds_per_case


def log(fold, epochs, seconds, when=0, length=10):
    """A log as nnU-Net writes it, of these ``epochs``, the last of which was interrupted."""
    fold.mkdir(parents=True, exist_ok=True)
    lines = [
        f"2026-01-01 00:00:00.000000: Epoch {epoch} \n2026-01-01 00:00:00.000000: train_loss 0.5 \n"
        + f"2026-01-01 00:00:01.000000: Epoch time: {seconds} s \n" * (epoch < epochs[-1])
        for epoch in epochs
    ]
    file = fold / f"training_log_2026_1_1_0_0_{when:02d}.txt"
    file.write_text("".join(lines))
    os.utime(file, (when, when))
    (fold / "debug.json").write_text(json.dumps({"num_epochs": str(length), "fold": "0"}))


def test_nothing_is_known_before_the_first_run(tmp_path):
    assert expected_seconds(tmp_path / "model" / "fold_0") is None
    assert epochs_left(tmp_path / "model" / "fold_0") is None


def test_other_folds_tell_how_long_a_new_one_takes(tmp_path):
    log(tmp_path / "fold_0", range(4), 2.5)
    assert epochs_left(tmp_path / "fold_1") == 10
    assert expected_seconds(tmp_path / "fold_1") == pytest.approx(25)
    log(tmp_path / "fold_2", range(9), 4.0)
    assert expected_seconds(tmp_path / "fold_1") == pytest.approx(40), "the median of 3 epochs of 2.5 s and 8 of 4 s"


def test_an_interrupted_training_goes_on_and_a_finished_one_is_done(tmp_path):
    fold = tmp_path / "fold_0"
    log(fold, range(8), 3.0, when=1)
    assert epochs_left(fold) == 10, "it has no checkpoint to go on from"
    (fold / "checkpoint_latest.pth").touch()
    assert epochs_left(fold) == 3, "epoch 7 was interrupted"
    log(fold, [5, 6], 3.0, when=2)
    assert epochs_left(fold) == 4
    assert expected_seconds(fold) == pytest.approx(12)
    (fold / "checkpoint_final.pth").touch()
    assert epochs_left(fold) == 0


def test_a_training_that_went_on_and_ended_before_an_epoch_is_where_it_was(tmp_path):
    fold = tmp_path / "fold_0"
    log(fold, range(6), 60)
    (fold / "checkpoint_latest.pth").touch()
    before = epochs_left(fold)
    (fold / "training_log_9.txt").write_text("out of memory\n")
    assert epochs_left(fold) == before < 10


def test_half_a_file_of_a_training_that_begins_tells_nothing(tmp_path):
    log(tmp_path / "fold_0", range(6), 60)
    (tmp_path / "fold_0" / "debug.json").write_text('{"num_ep')
    assert expected_seconds(tmp_path / "fold_0") is None


def test_a_first_epoch_that_is_not_over(tmp_path):
    log(tmp_path / "fold_0", [0], 3.0)
    assert epochs_left(tmp_path / "fold_0") == 10
    assert expected_seconds(tmp_path / "fold_0") is None


def test_a_prediction_tells_what_a_case_takes(tmp_path):
    assert seconds_per_case(tmp_path / "none") is None
    for name, when in {"predict_from_raw_data_args.json": 100, "b.nii.gz": 130, "a.nii.gz": 142}.items():
        assert seconds_per_case(tmp_path) in (None, 30)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (when, when))
    assert seconds_per_case(tmp_path) == 21
