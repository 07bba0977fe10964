from pathlib import Path

import pytest
import torch
from evil import Evil

from nnunet_cmc.commands.main import main


@pytest.mark.parametrize(
    ("environment", "arguments", "sentence"),
    [
        ({}, [], "nnunet_cmc train must be started by torchrun: for one process, use nnUNetv2_train."),
        ({"LOCAL_RANK": "0"}, ["-num_gpus", "2"], "-num_gpus belongs to nnUNetv2_train: omit it"),
    ],
)
def test_what_is_refused(environment, arguments, sentence, monkeypatch, capsys):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert main(["train", "502", "3d_fullres", "0", "-tr", "CMCTrainer", *arguments]) == 1
    assert f"nnunet_cmc: error: {sentence}" in capsys.readouterr().err


def test_nothing_in_pretrained_weights_is_executed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCAL_RANK", "0")
    torch.save({"network_weights": {}, "extra": Evil()}, "evil.pth")
    arguments = ["train", "502", "3d_fullres", "0", "-device", "cpu", "-pretrained_weights", "evil.pth"]
    assert main(arguments) == 1
    assert "nnunet_cmc: error: evil.pth holds a Python object (posix.mkdir)" in capsys.readouterr().err
    assert not Path("executed").exists()


def test_the_name_of_the_plans_is_no_abbreviation_of_pretrained_weights(monkeypatch, capsys):
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert main(["train", "502", "3d_fullres", "0", "-p", "CMCNNUNetPlans", "-device", "cuda"]) == 1
    said = capsys.readouterr().err
    assert "-device cpu" in said
    assert "CMCNNUNetPlans" not in said
