"""Seeded runs of every recipe are equal to the bit to those of the trainer it replaces; removed with the latter."""

import importlib

import pytest

from nnunet_cmc.trainers.registry import trainer_class

OLD = {
    "CMCTrainer": "few_labels.CMCTrainerFewLabels",
    "CMCTrainer_noCSC": "few_labels.CMCTrainerFewLabelsNoCSC",
    "CMCTrainer_noCAC": "few_labels.CMCTrainerFewLabelsNoCAC",
    "CMCTrainer_supervised": "few_labels.CMCTrainerFewLabelsSupervised",
    "CMCTrainerTeacher": "plus.CMCTrainerPlusNoCAC",
    "CMCTrainerPaper": "cmc_trainer.CMCTrainer",
    "CMCTrainerPaper_noCAC": "ablations.CMCTrainerNoCAC",
    "CMCTrainerPaper_encoders": "ablations.CMCTrainerModalityEncoders",
    "CMCTrainerPaper_baseline": "ablations.CMCTrainerBaseline",
    "CMCTrainerPaper_noCSC": "ablations.CMCTrainerNoCSC",
    "CMCTrainerPaper_noMIA": "ablations.CMCTrainerNoMIA",
    "CMCTrainerPaper_noModalityDropout": "ablations.CMCTrainerNoModalityDropout",
    "CMCTrainerPaper_onlyModality0": "ablations.CMCTrainerOnlyModality0",
    "CMCTrainerPaper_onlyModality1": "ablations.CMCTrainerOnlyModality1",
    "CMCTrainerAsPrinted": "as_printed.CMCTrainerAsPrinted",
    "MeanTeacherTrainer": "mean_teacher.MeanTeacherTrainer",
}


def run(cubes, cls):
    trainer = cubes.trainer(type("Seeded", (cls,), {"seed": 0}))
    trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.num_val_iterations_per_epoch = 2, 3, 1
    trainer.initialize()
    trainer.logger.local_logger.plot_progress_png = lambda folder: None
    trainer.perform_actual_validation = lambda *_: None
    trainer.run_training()
    log = trainer.logger.local_logger.my_fantastic_logging
    return trainer.network.state_dict(), (log["train_losses"], log["val_losses"], log["mean_fg_dice"])


@pytest.mark.parametrize("name", OLD)
def test_equal(cubes, name):
    module, _, old = OLD[name].partition(".")
    new, new_log = run(cubes, trainer_class(name))
    expected, old_log = run(cubes, getattr(importlib.import_module(f"nnunet_cmc.trainers.old.{module}"), old))
    assert new_log == old_log
    assert new.keys() == expected.keys()
    assert all(new[key].equal(expected[key]) for key in new)
