"""What a person reads while it trains, and what is in the log alone."""

import math
import re
import signal
from pathlib import Path

import pytest
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from short_trainers import short

from nnunet_cmc.commands.expected_time import EPOCH_TIME
from nnunet_cmc.trainers import cmc_trainer, reporting_trainer
from nnunet_cmc.trainers.reporting_trainer import epoch_line, is_not_learned

NAN = math.nan
LINE = re.compile(
    r"Epoch (\d) of 3, \d+\.\d s(, \d+ s left)?: loss -?\d\.\d\d, Dice (?:\d\.\d\d|nan) \(CT (.{3,4}), MR (.{3,4})\)"
    r"(, new best)?"
)
DETAILS = (
    "Epoch time:", "train_loss", "Pseudo dice", "Pseudo dice alone", "gradients", "rows shown:", "pairs ",
    "global plan.json settings",
)  # fmt: skip


def test_the_line_of_an_epoch():
    alone = {"CT": 0.684, "MR": NAN}
    line = epoch_line(3, 1000, [14.3, 12.26, 10.3], -0.517, 0.709, alone, True)
    assert line == "Epoch 3 of 1000, 10.3 s, 3 h 24 min left: loss -0.52, Dice 0.71 (CT 0.68, MR -), new best"
    assert EPOCH_TIME.findall(line) == ["10.3"], "what `nnunet_cmc compare` reads"
    last = epoch_line(8, 8, [2.0], 0.1, 0.5, {"CT": 0.0}, False)
    assert last == "Epoch 8 of 8, 2.0 s: loss 0.10, Dice 0.50 (CT 0.00)"


@pytest.mark.parametrize(
    ("dice", "epochs", "expected"),
    [
        ([0.0], 10, True),
        ([0.0] * 2, 10, False),
        ([0.0], 9, False),
        ([0.0] * 9, 9, False),
        ([0.0] * 10, 100, True),
        ([NAN] * 9 + [0.0], 100, True),
        ([NAN] * 10, 100, False),
        ([0.0] * 9 + [1e-9], 100, False),
        ([0.1] + [0.0] * 9, 100, False),
        ([0.0] * 10, 1000, False),
        ([0.0] * 100, 1000, True),
        ([0.0] * 101, 1000, False),
        ([0.0] * 11, 101, True),
    ],
)
def test_a_modality_is_not_learned_where_its_dice_never_left_0(dice, epochs, expected):
    assert is_not_learned(dice, epochs) is expected


@pytest.fixture
def trained(registered, monkeypatch, capsys):
    """Trainer of three epochs in which CT finds nothing, and what was on the screen."""
    dice = iter([0.0, 0.25] * 3)
    monkeypatch.setattr(cmc_trainer, "mean_dice_of_shown", lambda confusion: next(dice))
    monkeypatch.setattr(reporting_trainer, "FEWEST_EPOCHS", 3)
    trainer = registered.trainer(short("CMCTrainerPaper", 3, 1, 1))
    trainer.run_training()
    return trainer, capsys.readouterr().out


def test_a_line_an_epoch_is_on_the_screen_and_details_are_in_the_log(trained, capsys):
    trainer, screen = trained
    log = Path(trainer.log_file).read_text()
    lines = [match for line in screen.splitlines() if (match := LINE.fullmatch(line))]
    assert [match[1] for match in lines] == ["1", "2", "3"]
    assert [bool(match[2]) for match in lines] == [True, True, False], "after the last epoch none is left"
    assert {(match[3], match[4]) for match in lines} == {("0.00", "0.25")}
    assert [bool(match[5]) for match in lines].count(True) == log.count("Yayy! New best") >= 1
    for detail in DETAILS:
        assert detail in log
        assert detail not in screen
    for before_and_after in ("Recipe of Short:", "CT: 2 labelled", "Training done."):
        assert before_and_after in log
        assert before_and_after in screen
    after_the_recipe = screen[screen.index("are frozen.") :].splitlines()
    assert len(after_the_recipe) == 1 + 3 + 1 + 1, "the lines, the warning and nnU-Net's end"

    trainer.local_rank = 1
    trainer.on_epoch_start()
    trainer.on_epoch_end()
    assert capsys.readouterr().out == "", "other ranks say nothing"


def test_a_modality_that_is_not_learned_is_named_once(trained):
    trainer, screen = trained
    for text in (screen, Path(trainer.log_file).read_text()):
        (warning,) = re.findall("WARNING: .*", text)
        assert "the Dice of CT alone is still 0 after 1 of 3 epochs: see how many labelled cases of CT" in warning
        assert "`nnunet_cmc inspect`" in warning
        assert "docs/" not in warning, "no wheel has them"


def test_the_end_names_what_was_written(trained, capsys, monkeypatch):
    trainer, screen = trained
    assert "Written:" not in screen, "the validation is still to come"
    folder = Path(trainer.output_folder)

    def validate(trainer, save_probabilities=False):
        (folder / "validation").mkdir(exist_ok=True)

    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", validate)
    trainer.perform_actual_validation()
    (line,) = re.findall(r"^Written: (.*) \((.*)\)$", capsys.readouterr().out, re.MULTILINE)
    assert line[0] == str(folder)
    written = {"checkpoint_final.pth", "validation"}  # without pictures
    assert written <= set(line[1].split(", ")) <= written | {"checkpoint_best.pth"}
    assert all((folder / name).exists() for name in line[1].split(", "))

    trainer.local_rank = 1
    trainer.perform_actual_validation()
    assert capsys.readouterr().out == "", "other ranks say nothing"


def test_a_validation_alone_wrote_no_checkpoint(registered, capsys, monkeypatch):
    trainer = registered.trainer(short("CMCTrainerPaper"))
    folder = Path(trainer.output_folder)
    (folder / "validation").mkdir(parents=True)
    (folder / "checkpoint_final.pth").touch()
    monkeypatch.setattr(nnUNetTrainer, "perform_actual_validation", lambda *_: None)
    trainer.perform_actual_validation()
    assert capsys.readouterr().out.splitlines()[-1] == f"Written: {folder} (validation)"


def test_the_screen_tells_why_a_training_ends_within_an_epoch(registered, capsys):
    trainer = registered.trainer(short("CMCTrainer"))
    trainer.on_train_start()
    trainer.on_epoch_start()
    trainer.on_train_epoch_start()
    trainer._signal = signal.SIGTERM
    batch = next(trainer.dataloader_train)
    with pytest.raises(SystemExit):
        trainer.train_step(batch)
    screen = capsys.readouterr().out
    assert "SIGTERM: saved checkpoint_latest.pth" in screen
    assert "Epoch 0" not in screen


def test_a_round_of_pseudo_labels_shows_its_progress_and_not_the_cases_of_the_fold_again(registered, capsys):
    trainer = registered.trainer(short("PseudoLabelTrainer", 3, 1, 1))
    trainer.run_training()
    screen, log = capsys.readouterr(), Path(trainer.log_file).read_text()
    number = len(trainer.samplers.unlabeled_dataset.identifiers)
    assert log.count("CT: 2 labelled") == log.count("Mirroring the axes") == 3, "at the start and in two rounds"
    assert screen.out.count("CT: 2 labelled") == screen.out.count("Mirroring the axes") == 1
    for told, times in (
        (f"Predicting pseudo-labels of {number} unlabelled scans", 2),
        ("Weights of the scans", 1),
    ):  # first all weigh 1
        assert screen.out.count(told) == log.count(told) == times
    assert screen.err.count(f"Labelling:   0%|          | 0/{number}") == 2


def test_a_modality_that_is_never_trained_is_not_reported(registered, capsys, monkeypatch):
    monkeypatch.setattr(reporting_trainer, "FEWEST_EPOCHS", 1)
    monkeypatch.setattr(cmc_trainer, "mean_dice_of_shown", lambda confusion: 0.0)
    registered.trainer(short("CMCTrainerPaper_onlyModality0", 1, 1, 1)).run_training()
    screen = capsys.readouterr().out
    assert "(CT 0.00)" in screen
    assert re.findall(r"the Dice of (\w+) alone", screen) == ["CT"]
