import inspect

import pytest
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from nnunet_cmc.trainers.budget import EPOCHS, ITERATIONS, Budget, nnUNetTrainer_cmcbudget


class Stock:
    """nnU-Net's numbers, without its files."""

    def __init__(self, plans, configuration, fold, dataset_json, device):
        self.arguments = (plans, configuration, fold, dataset_json, device)
        self.num_epochs, self.num_iterations_per_epoch, self.num_val_iterations_per_epoch = 1000, 250, 50


class Budgeted(Budget, Stock):
    pass


@pytest.mark.parametrize(("iterations", "validation"), [(250, 50), (1000, 50), (20, 4), (4, 1), (1, 1)])
def test_the_numbers_come_from_the_environment(monkeypatch, iterations, validation):
    monkeypatch.setenv(EPOCHS, "30")
    monkeypatch.setenv(ITERATIONS, str(iterations))
    trainer = Budgeted({}, "3d_fullres", 0, {}, torch.device("cpu"))
    assert trainer.arguments == ({}, "3d_fullres", 0, {}, torch.device("cpu"))
    assert trainer.num_epochs == 30
    assert trainer.num_iterations_per_epoch == iterations
    assert trainer.num_val_iterations_per_epoch == validation


@pytest.mark.parametrize(("variable", "threads"), [("1", 1), ("1,4", 1), ("", 2), ("many", 2)])
def test_threads_on_a_cpu(monkeypatch, variable, threads):
    before = torch.get_num_threads()
    monkeypatch.setenv(EPOCHS, "1")
    monkeypatch.setenv(ITERATIONS, "1")
    monkeypatch.setenv("OMP_NUM_THREADS", variable)
    try:
        torch.set_num_threads(2)  # as nnU-Net does
        Budgeted({}, "3d_fullres", 0, {}, torch.device("cpu"))
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("variable", [EPOCHS, ITERATIONS])
@pytest.mark.parametrize("value", [None, "", "0", "-3", "1.5", "many", "²"])
def test_a_number_that_is_missing_or_wrong_is_named(monkeypatch, variable, value):
    monkeypatch.setenv(EPOCHS, "30")
    monkeypatch.setenv(ITERATIONS, "20")
    if value is None:
        monkeypatch.delenv(variable)
    else:
        monkeypatch.setenv(variable, value)
    with pytest.raises(ValueError, match="positive integer") as caught:
        Budgeted({}, "3d_fullres", 0, {}, torch.device("cpu"))
    assert f"The environment variable {variable} " in str(caught.value)
    assert (f"is '{value}'" if value else "is not set") in str(caught.value)


def test_everything_else_is_stock(monkeypatch, tmp_path):
    """Every attribute that nnU-Net's constructor sets has nnU-Net's value, but for the three numbers."""
    monkeypatch.setenv(EPOCHS, "2")
    monkeypatch.setenv(ITERATIONS, "10")
    monkeypatch.setenv("nnUNet_results", str(tmp_path))
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)

    def build(cls):
        plans = {
            "dataset_name": "Dataset001_X",
            "plans_name": "nnUNetPlans",
            "continue_training": False,
            "configurations": {"3d_fullres": {"data_identifier": "x", "architecture": {}}},
        }
        dataset_json = {"labels": {"background": 0, "a": 1}, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
        return cls(plans, "3d_fullres", 0, dataset_json, torch.device("cpu"))

    ours, stock = build(nnUNetTrainer_cmcbudget), build(nnUNetTrainer)
    assert inspect.signature(nnUNetTrainer_cmcbudget).parameters == inspect.signature(nnUNetTrainer).parameters
    simple = {name for name, value in vars(stock).items() if isinstance(value, int | float | str | None)}
    differing = {name for name in simple if vars(ours)[name] != vars(stock)[name]}
    assert differing - {"output_folder", "output_folder_base", "log_file"} == {
        "num_epochs",
        "num_iterations_per_epoch",
        "num_val_iterations_per_epoch",
    }
    assert (ours.num_epochs, ours.num_iterations_per_epoch, ours.num_val_iterations_per_epoch) == (2, 10, 2)
