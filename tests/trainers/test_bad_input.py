"""What a training refuses or survives beside folds and plans, which test_cmc_trainer.py has."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.noise.gaussian_blur import blur_dimension
from evil import Evil
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

CONFIGURATION = "3d_fullres"


def checkpoint_of(cubes, **changes) -> tuple:
    """A trainer and the file of a checkpoint that it has saved."""
    trainer = cubes.trainer(**changes)
    trainer.initialize()
    trainer.save_checkpoint(file := str(Path(trainer.output_folder, "checkpoint_latest.pth")))
    return trainer, file


def test_a_full_disk_leaves_the_checkpoint_before(registered, full_disk):
    trainer, file = checkpoint_of(registered)
    before = Path(file).read_bytes()
    trainer.current_epoch = 1
    with full_disk(len(before) // 2), pytest.raises(OSError, match="for lack of space: free some, or choose another"):
        trainer.save_checkpoint(file)
    assert Path(file).read_bytes() == before
    assert [path.name for path in Path(file).parent.glob("*checkpoint*")] == ["checkpoint_latest.pth"]
    assert not list(Path(file).parent.glob(".*"))


def test_a_checkpoint_of_another_number_of_classes(registered):
    _, file = checkpoint_of(registered)
    registered.dataset_json["labels"]["more"] = 2
    with pytest.raises(ValueError, match=r"do not fit the network .*size mismatch.*: use those") as error:
        registered.trainer().load_checkpoint(file)
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_plans(registered):
    _, file = checkpoint_of(registered)
    plans = json.loads(json.dumps(registered.plans["configurations"]))
    plans[CONFIGURATION]["architecture"]["arch_kwargs"]["encoder_kwargs"]["features_per_stage"] = [4, 6, 8]
    with pytest.raises(ValueError, match=r"do not fit the network of the plans and dataset.json"):
        registered.trainer(configurations=plans).load_checkpoint(file)


def test_a_checkpoint_of_a_stock_trainer(registered):
    trainer, file = checkpoint_of(registered)
    checkpoint = torch.load(file, weights_only=False)
    del checkpoint["epoch_outputs"]
    torch.save(checkpoint | {"trainer_name": nnUNetTrainer.__name__}, file)
    with pytest.raises(ValueError, match=r"is of nnUNetTrainer, which Quiet cannot continue: train without --c"):
        trainer.load_checkpoint(file)


def test_a_checkpoint_that_is_truncated(registered):
    trainer, file = checkpoint_of(registered)
    Path(file).write_bytes(Path(file).read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"checkpoint_latest.pth cannot be read .* truncated; remove it and go on"):
        trainer.load_checkpoint(file)


@pytest.mark.usefixtures("ordinary_user")
def test_results_that_cannot_be_written(registered):
    registered.results.mkdir()
    registered.results.chmod(0o555)
    with pytest.raises(PermissionError, match="results"):
        registered.trainer()
    registered.results.chmod(0o755)


@pytest.mark.parametrize("variable", ["nnUNet_preprocessed", "nnUNet_results"])
def test_a_variable_that_is_not_set(registered, monkeypatch, variable):
    monkeypatch.delenv(variable)
    with pytest.raises(ValueError, match=f"{variable} is not set: set this variable to nnU-Net's folder of that name"):
        registered.trainer()


def test_a_dataset_that_was_not_preprocessed(registered):
    registered.images.rename(registered.folder / "CMCTinyPlans_2d")
    with pytest.raises(ValueError) as caught:
        registered.trainer()
    assert str(caught.value) == (
        f"There is no {registered.images}: run nnUNetv2_preprocess -d 901 -plans_name CMCTinyPlans -c 3d_fullres first."
    )
    assert not registered.results.exists()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(registered, monkeypatch, device):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(ValueError, match=rf"finds no GPU here \({device}\): compute on the CPU, with -device cpu"):
        registered.trainer(device=device)
    assert not registered.results.exists()


def test_one_case_only(registered):
    """Where there is nothing to validate on: fold all trains and validates on the one."""
    for file in registered.images.iterdir():
        if not file.name.startswith("case0"):
            file.unlink()
    trainer = registered.trainer(fold="all")
    trainer.initialize()
    labeled, unlabeled, _, val = trainer.fold_cases.samplers(None)
    assert (list(labeled.cases), unlabeled, val) == (["case0"], None, ["case0"])
    trainer.run_training()
    assert trainer.current_epoch == 2


def test_volumes_smaller_than_the_patch(registered):
    """They are padded, as nnU-Net does it."""
    configuration = registered.plans["configurations"][CONFIGURATION]
    configuration["patch_size"] = configuration["architecture"]["arch_kwargs"]["patch_size"] = [24, 24, 24]
    trainer = registered.trainer()  # of volumes of 20 x 24 x 22
    trainer.num_epochs = trainer.num_iterations_per_epoch = trainer.num_val_iterations_per_epoch = 1
    trainer.run_training()
    assert np.isfinite(trainer.logger.get_value("train_losses", None)).all()


def test_a_patch_of_three_slices(registered):
    """Whose blur fails now and then, in one of nnU-Net's workers."""
    configuration = registered.plans["configurations"][CONFIGURATION]
    configuration["patch_size"] = configuration["architecture"]["arch_kwargs"]["patch_size"] = [3, 32, 32]
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        blur_dimension(torch.ones(1, 3, 32, 32), sigma=1.0, dim_to_blur=0)
    with pytest.raises(ValueError, match=r"The patch \[3, 32, 32\] has a side of fewer than 4 voxels, .*: plan again"):
        registered.trainer().get_dataloaders()


def cut(file):
    file.write_bytes(file.read_bytes()[:-9])


PREPROCESSED = {
    "code": (".pkl", lambda file: file.write_bytes(pickle.dumps(Evil())), r"it would call posix\.mkdir"),
    "truncated properties": (".pkl", cut, "pickle data was truncated"),
    "empty properties": (".pkl", lambda file: file.write_bytes(b""), "Ran out of input"),
    "missing properties": (".pkl", Path.unlink, "it is missing"),
    "properties of a stock preprocessor": (
        ".pkl",
        lambda file: file.write_bytes(pickle.dumps({"class_locations": {}})),
        "it was not preprocessed by CMCPreprocessor",
    ),
    "truncated image": (".b2nd", cut, ".*"),
    "text for an image": (".b2nd", lambda file: file.write_text("404"), ".*"),
    "missing image": (".b2nd", Path.unlink, "it is missing"),
    "truncated label": ("_seg.b2nd", cut, ".*"),
    "missing label": ("_seg.b2nd", Path.unlink, "it is missing"),
}


@pytest.mark.parametrize(
    ("case", "damage"),
    [
        (case, damage)
        for case in ("case0", "case2", "more")  # labelled, with a hidden label, unlabelled
        for damage in PREPROCESSED
        if case == "case0" or "label" not in damage  # nobody opens the label of the others
    ],
)
def test_preprocessed_files_that_are_damaged_or_hostile(registered, monkeypatch, tmp_path, case, damage):
    monkeypatch.chdir(tmp_path)
    ending, change, reason = PREPROCESSED[damage]
    registered.add_unlabeled("more", [0])
    folder = Path(f"{registered.images}_unlabeled") if case == "more" else registered.images
    trainer = registered.trainer()
    trainer.initialize()
    labeled, unlabeled, *_ = trainer.fold_cases.samplers(None)
    dataset = (labeled if case == "case0" else unlabeled).dataset
    assert dataset.load_case(case)[3]["present_channels"] == [0, 1][: 1 if case == "more" else 2]
    change(folder / f"{case}{ending}")
    with pytest.raises(
        ValueError, match=rf"^Case {case}: .*{case}{ending} cannot be read \({reason}.*: preprocess"
    ) as e:
        dataset.load_case(case)
    assert "\n" not in str(e.value)
    assert not Path("executed").exists()
