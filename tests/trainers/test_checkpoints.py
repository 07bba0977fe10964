"""Checkpoints that a training goes on from, and those that it must not go on from."""

import json
import os
import signal
from pathlib import Path

import pytest
import torch
from short_trainers import short

EPOCHS = 3


class Quiet(short("CMCTrainer_supervised", EPOCHS)):
    """Saving every epoch."""

    def initialize(self):
        super().initialize()
        self.save_every = 1


def latest(trainer) -> str:
    return str(Path(trainer.output_folder) / "checkpoint_latest.pth")


def test_the_newer_of_latest_and_best_is_continued(unpaired):
    """nnU-Net's --c takes the latest, which may be 49 epochs older than the best."""
    first = unpaired.trainer(Quiet)
    first.run_training()
    best = Path(first.output_folder) / "checkpoint_best.pth"
    content = torch.load(best, weights_only=False)
    for saved, other, expected in ((7, 3, 7), (3, 7, 7), (5, 5, 5)):
        torch.save(content | {"current_epoch": saved}, best)
        torch.save(content | {"current_epoch": other, "epoch_outputs": []}, latest(first))
        resumed = unpaired.trainer(Quiet)
        resumed.load_checkpoint(latest(first))
        assert resumed.current_epoch == expected
        assert (resumed.epoch_outputs is None) == (saved > other), "within an epoch is later than its start"


def swap(cubes) -> None:
    """Another split of the fold: a training case validates, and the other way round."""
    (fold,) = json.loads((cubes.folder / "splits_final.json").read_text())
    fold["train"][0], fold["val"][0] = fold["val"][0], fold["train"][0]
    cubes.split(**fold)


@pytest.mark.parametrize("change", [swap, lambda cubes: cubes.add_unlabeled("more", [0])])
def test_a_checkpoint_of_another_split_is_neither_continued_nor_validated(registered, change):
    first = registered.trainer(Quiet)
    first.num_epochs = 1
    first.run_training()
    change(registered)
    resumed = registered.trainer(Quiet)
    resumed.num_epochs = 1
    resumed.load_checkpoint(str(Path(first.output_folder) / "checkpoint_final.pth"))
    case, words = ("case0", '"train", and is in "val"') if change is swap else ("more", 'no list, and is in "imagesUn"')
    message = f"Fold 0 is another split than .* was trained on: case {case} was in {words}: restore the files"
    with pytest.raises(ValueError, match=message):
        resumed.run_training()
    if change is swap:  # what is validated has not changed otherwise
        for trainer in (first, resumed):
            with pytest.raises(ValueError, match=message):
                trainer.perform_actual_validation()


def test_a_checkpoint_that_does_not_know_its_split_says_so(registered):
    first = registered.trainer(Quiet)
    first.num_epochs = 1
    first.run_training()
    file = Path(first.output_folder) / "checkpoint_final.pth"
    content = torch.load(file, weights_only=False)
    assert content.pop("cases")["unlabeled"] == registered.hidden()
    torch.save(content, file)
    resumed = registered.trainer(Quiet)
    resumed.num_epochs = 1
    resumed.load_checkpoint(str(file))
    resumed.get_dataloaders()
    assert "does not say which cases it was trained on" in Path(resumed.log_file).read_text()


def test_a_training_of_another_length_is_not_continued(unpaired):
    first = unpaired.trainer(Quiet)
    first.num_epochs = 1
    first.run_training()
    with pytest.raises(ValueError, match="is of a training of 1 epochs, and this one has 3: give it the same length"):
        unpaired.trainer(Quiet).load_checkpoint(str(Path(first.output_folder) / "checkpoint_final.pth"))


def test_a_new_training_sets_the_checkpoints_of_an_earlier_one_aside(unpaired):
    """Or --c would go on from them, when the new training is interrupted."""
    first = unpaired.trainer(Quiet)
    first.run_training()
    folder = Path(first.output_folder)
    before = {file.name: file.read_bytes() for file in folder.glob("*.pth")}
    assert before.keys() == {"checkpoint_final.pth", "checkpoint_best.pth"}
    new = unpaired.trainer(Quiet)
    new.on_train_epoch_start = lambda: os.kill(os.getpid(), signal.SIGTERM) or type(new).on_train_epoch_start(new)
    with pytest.raises(SystemExit):
        new.run_training()
    assert [file.name for file in folder.glob("*.pth")] == ["checkpoint_latest.pth"]
    assert {file.name: file.read_bytes() for file in (folder / "earlier_training").iterdir()} == before
    assert "moved to" in Path(new.log_file).read_text()
    resumed = unpaired.trainer(Quiet)
    resumed.load_checkpoint(latest(new))
    assert resumed.current_epoch == 0
    assert resumed.iteration == 0


class Unseeded(Quiet):
    """With the seed of NNUNET_CMC_SEED."""

    seed = None


def test_a_training_goes_on_with_its_seed(registered, monkeypatch):
    monkeypatch.setenv("NNUNET_CMC_SEED", "5")
    first = registered.trainer(Unseeded)
    first.initialize()
    file = str(Path(first.output_folder) / "checkpoint_latest.pth")
    first.save_checkpoint(file)
    monkeypatch.delenv("NNUNET_CMC_SEED")
    without = registered.trainer(Unseeded)
    without.load_checkpoint(file)
    assert without.seed == 5
    without.save_checkpoint(file)
    monkeypatch.setenv("NNUNET_CMC_SEED", "6")
    with pytest.raises(ValueError, match="training with seed 5, and this one has 6: unset NNUNET_CMC_SEED, or train"):
        registered.trainer(Unseeded).load_checkpoint(file)
    content = torch.load(file, weights_only=False)
    torch.save(content | {"seed": None}, file)
    with pytest.raises(ValueError, match="training with no seed, and this one has 6: unset NNUNET_CMC_SEED, or train"):
        registered.trainer(Unseeded).load_checkpoint(file)
    torch.save({name: value for name, value in content.items() if name != "seed"}, file)
    of_earlier_version = registered.trainer(Unseeded)
    of_earlier_version.load_checkpoint(file)
    assert of_earlier_version.seed == 6
