"""What nnU-Net does with trained models works with ours: the best configuration, ensembles, zip files."""

import json
import pickle
import re
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from evil import Evil
from nnunetv2.ensembling.ensemble import ensemble_folders
from nnunetv2.evaluation.find_best_configuration import find_best_configuration
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
)
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.model_sharing.model_export import export_pretrained_model
from nnunetv2.model_sharing.model_import import install_model_from_zip_file
from nnunetv2.postprocessing.remove_connected_components import apply_postprocessing_to_folder
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunet_cmc.commands.main import main
from nnunet_cmc.inference.predictor import Predictor

PLANS, TRAINERS = "CMCNNUNetSmallPlans", ("CMCTrainer_smoke", "CMCTrainerPaper_noMIA")


def labels(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))


@pytest.fixture
def best(in_tiny):
    models = [{"plans": PLANS, "configuration": "3d_fullres", "trainer": trainer} for trainer in TRAINERS]
    return find_best_configuration(903, models, folds=(0,), num_processes=1)


def test_the_best_of_two_models_and_their_ensemble_is_found_and_used(in_tiny, best, tmp_path):
    dice = best["all_results"]
    assert len(dice) == 3, "both models and their ensemble"
    assert best["best_model_or_ensemble"]["result_on_crossval_pre_pp"] == max(dice.values())
    instructions = (in_tiny.model.parent / "inference_instructions.txt").read_text()
    assert "nnUNetv2_predict -d 903" in instructions
    assert f"-p {PLANS}" in instructions

    folders = []
    for model in (in_tiny.model, in_tiny.other):
        predictor = nnUNetPredictor(device=torch.device("cpu"), allow_tqdm=False)
        predictor.initialize_from_trained_model_folder(str(model), ["0"])
        folders.append(tmp_path / model.name)
        folders[-1].mkdir()
        case = [str(in_tiny.new / f"both_{channel:04d}.nii.gz") for channel in (0, 1)]
        predictor.predict_from_files_sequential([case], [str(folders[-1] / "both")], save_probabilities=True)
    ensemble, final = tmp_path / "ensemble", tmp_path / "final"
    ensemble_folders([str(folder) for folder in folders], str(ensemble), num_processes=1)
    mean = np.mean([np.load(folder / "both.npz")["probabilities"].astype(float) for folder in folders], axis=0)
    certain = np.abs(mean[0] - mean[1]) > 1e-3
    found = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(ensemble / "both.nii.gz")), "RAS"))
    np.testing.assert_array_equal(found[certain], mean.argmax(0)[certain])

    with open(best["best_model_or_ensemble"]["postprocessing_file"], "rb") as file:
        functions, arguments = pickle.load(file)
    shutil.copy(in_tiny.model / "plans.json", ensemble)
    apply_postprocessing_to_folder(str(ensemble), str(final), functions, arguments, num_processes=1)
    assert labels(final / "both.nii.gz").shape == labels(ensemble / "both.nii.gz").shape


@pytest.fixture
def exported(in_tiny, best, tmp_path):
    postprocessing = in_tiny.model / "crossval_results_folds_0" / "postprocessing.pkl"
    if not postprocessing.exists():  # it lies there where this model is better than the other and their ensemble
        shutil.copy(best["best_model_or_ensemble"]["postprocessing_file"], postprocessing)
    file = tmp_path / "model.zip"
    export_pretrained_model(903, str(file), ("3d_fullres",), TRAINERS[0], PLANS, folds=(0,))
    return file


def test_a_model_from_a_zip_file_predicts_the_same(in_tiny, exported, monkeypatch, tmp_path, capsys):
    assert main(["doctor", "--verify", str(exported)]) == 0
    said = capsys.readouterr().out
    assert "Nothing in there executes code" in said
    assert "fold_0/checkpoint_final.pth" in said
    with zipfile.ZipFile(exported) as archive:
        assert any(name.endswith("postprocessing.pkl") for name in archive.namelist())

    (tmp_path / "elsewhere").mkdir()
    monkeypatch.setenv("nnUNet_results", str(tmp_path / "elsewhere"))
    install_model_from_zip_file(str(exported))
    model = tmp_path / "elsewhere" / in_tiny.raw.name / in_tiny.model.name
    case = [in_tiny.new / f"both_{channel:04d}.nii.gz" for channel in (0, 1)]
    results = [Predictor(m, [0], device="cpu").predict_files(case) for m in (model, in_tiny.model)]
    np.testing.assert_array_equal(*map(sitk.GetArrayFromImage, results))


def hostile_plans(network="os.path.join", kwargs=None, imports=()):
    architecture = {"network_class_name": network, "arch_kwargs": kwargs or {}, "_kw_requires_import": list(imports)}
    return json.dumps({"configurations": {"3d_fullres": {"architecture": architecture}}}).encode()


def named(key, name, configuration="3d_fullres"):
    plans = {"configurations": {configuration: {key: name}}} if configuration else {"configurations": {}, key: name}
    return lambda _: json.dumps(plans).encode()


UNET = "dynamic_network_architectures.architectures.unet.PlainConvUNet"


def evil_checkpoint(folder):
    torch.save({"network_weights": {}, "extra": Evil()}, folder / "evil.pth")
    return (folder / "evil.pth").read_bytes()


HOSTILE = {
    "code in a checkpoint": ("m/fold_0/c.pth", evil_checkpoint, r"a Python object \(posix.mkdir\)"),
    "code in postprocessing": ("m/postprocessing.pkl", lambda _: pickle.dumps(Evil()), "it would call posix.mkdir"),
    "a path upwards": ("../../outside.json", lambda _: b"{}", "its path leads out of the folder"),
    "an absolute path": ("/elsewhere/outside.json", lambda _: b"{}", "its path leads out of the folder"),
    "a foreign network": ("m/plans.json", lambda _: hostile_plans(), "would import os.path.join"),
    "a foreign argument": (
        "m/plans.json",
        lambda _: hostile_plans("nnunet_cmc.networks.CMCNet", {"x": "os.system"}, ["x"]),
        "would import nnunet_cmc.networks.CMCNet, os.system",
    ),
    "a call in torch": (
        "m/plans.json",
        lambda _: hostile_plans(UNET, {"nonlin": "torch.os.system", "nonlin_kwargs": {"command": "x"}}, ["nonlin"]),
        f"would import {UNET}, torch.os.system",
    ),
    "a call in our package": (
        "m/plans.json",
        lambda _: hostile_plans("nnunet_cmc.utils.checkpoints.torch.hub.load", {"repo_or_dir": "x"}),
        "would import nnunet_cmc.utils.checkpoints.torch.hub.load",
    ),
    "a call in nnU-Net's networks": (
        "m/plans.json",
        lambda _: hostile_plans("dynamic_network_architectures.architectures.unet.torch.hub.load"),
        "would import dynamic_network_architectures.architectures.unet.torch.hub.load",
    ),
    "no network": (
        "m/plans.json",
        lambda _: b'{"configurations": {"x": {"architecture": []}}}',
        "its configuration x has an architecture that describes no network",
    ),
    "a folder elsewhere": (
        "m/plans.json",
        lambda _: b'{"configurations": {}, "plans_name": "../x"}',
        "not a folder name",
    ),
    "a resampling": ("m/plans.json", named("resampling_fn_data", "load_pickle"), "'load_pickle' as resampling_fn_data"),
    "a resampling of labels": ("m/plans.json", named("resampling_fn_seg", "zoom"), "'zoom' as resampling_fn_seg"),
    "a resampling of probabilities": (
        "m/plans.json",
        named("resampling_fn_probabilities", "os"),
        "its configuration 3d_fullres has 'os' as resampling_fn_probabilities, which nnU-Net would look up and call",
    ),
    "an argument of resampling": (
        "m/plans.json",
        named("resampling_fn_data_kwargs", {"order": 3, "preprocessor": 1}),
        "'preprocessor' as resampling_fn_data_kwargs",
    ),
    "an argument that is no plain value": (
        "m/plans.json",
        named("resampling_fn_seg_kwargs", {"order": {"x": 1}}),
        "{'x': 1} as resampling_fn_seg_kwargs",
    ),
    "a preprocessor": ("m/plans.json", named("preprocessor_name", "Pool"), "'Pool' as preprocessor_name"),
    "a normalization": (
        "m/plans.json",
        named("normalization_schemes", ["CTNormalization", "join"]),
        "'join' as normalization_schemes",
    ),
    "a mask": ("m/plans.json", named("use_mask_for_norm", ["x"]), "'x' as use_mask_for_norm"),
    "a reader": ("m/plans.json", named("image_reader_writer", "sitk", None), "the plans have 'sitk' as image_reader"),
    "a label manager": ("m/plans.json", named("label_manager", "abc", None), "'abc' as label_manager"),
    "a planner": ("m/plans.json", named("experiment_planner_used", "join", None), "'join' as experiment_planner_used"),
    "a list as a name": ("m/plans.json", named("label_manager", [["x"]], None), "['x'] as label_manager"),
    "a reader of the dataset": (
        "m/dataset.json",
        lambda _: b'{"overwrite_image_reader_writer": "load_pickle"}',
        "dataset.json has 'load_pickle' as overwrite_image_reader_writer",
    ),
    "no dataset": ("m/dataset.json", lambda _: b"[]", "dataset.json must hold an object"),
    "plans that some systems find": ("m/Plans.JSON", named("label_manager", "abc", None), "'abc' as label_manager"),
    "a script": ("m/run.py", lambda _: b"", "it is of no kind that a model has"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_archive_is_told_before_nnunet_sees_it(tmp_path, capsys, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    name, content, sentence = HOSTILE[kind]
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        archive.writestr("m/dataset_fingerprint.json", "{}")
        archive.writestr(name, content(tmp_path))
    assert main(["doctor", "--verify", "model.zip"]) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.out.splitlines() if line.startswith("BROKEN"))
    assert name in line
    assert sentence.replace("\\", "") in line
    assert "1 of 2 checks are BROKEN" in said.err
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("planner", [ExperimentPlanner, nnUNetPlannerResEncL])
def test_plans_of_nnunet_are_sound(planner, tmp_path, monkeypatch, capsys, in_tiny):
    """Whatever nnU-Net plans, 2-D and 3-D, as it writes it."""
    monkeypatch.chdir(tmp_path)
    made = planner(903, suppress_transpose=True)
    made.generate_data_identifier = lambda name: name
    statistics = {"mean": 0, "std": 1, "percentile_00_5": 0, "percentile_99_5": 1, "min": 0, "max": 1, "median": 0}
    made.dataset_fingerprint["foreground_intensity_properties_per_channel"] = {"0": statistics, "1": statistics}
    made.save_plans = lambda plans: None
    plans = made.plan_experiment()
    recursive_fix_for_json_export(plans)
    with zipfile.ZipFile("model.zip", "w") as archive:
        archive.writestr("plans.json", json.dumps(plans))
    assert main(["doctor", "--verify", "model.zip"]) == 0, capsys.readouterr().out
    assert {"2d", "3d_fullres"} <= plans["configurations"].keys()


@pytest.mark.parametrize("kind", ["declared", "many", "in a checkpoint", "by another method", "more than declared"])
def test_archives_that_would_fill_the_disk(tmp_path, capsys, kind):
    """200 MiB of zeros are 200 KiB, unpacked nowhere."""
    file, method = tmp_path / "model.zip", zipfile.ZIP_LZMA if kind == "by another method" else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(file, "w", method) as archive:
        if kind == "many":
            for number in range(10_001):
                archive.writestr(f"{number}.txt", "")
        with archive.open(
            "archive/data.pkl" if kind == "in a checkpoint" else "fold_0/checkpoint_final.pth", "w"
        ) as pth:
            for _ in range(200 if kind in ("declared", "in a checkpoint") else 1):
                pth.write(bytes(2**20))
    if kind == "in a checkpoint":
        file = file.rename(tmp_path / "checkpoint_final.pth")
    if kind == "more than declared":
        file.write_bytes(file.read_bytes().replace((2**20).to_bytes(4, "little"), (2**10).to_bytes(4, "little")))
    assert main(["doctor", "--verify", str(file)]) == 1
    told = {
        "declared": "its 0.2 MiB would unpack to 200 MiB, and a model does not shrink so much: do not unpack it",
        "many": "it has 10002 entries, and a model has a few: do not unpack it",
        "in a checkpoint": "its 0.2 MiB would unpack to 200 MiB",
        "by another method": "it is compressed by a method that nnU-Net does not use: export the model again",
        "more than declared": "Bad CRC-32 for file 'fold_0/checkpoint_final.pth'",
    }
    assert told[kind] in capsys.readouterr().out


def test_links_in_an_archive(tmp_path, capsys):
    """Of which an unpacking program makes links, through which what comes after would be written elsewhere."""
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for name in ("fold_0", "notes.txt"):
            link = zipfile.ZipInfo(name)
            link.external_attr = 0o120777 << 16
            archive.writestr(link, "/etc")
    assert main(["doctor", "--verify", str(tmp_path / "model.zip")]) == 1
    assert capsys.readouterr().out.count("it is a link to another file: export the model again") == 2


def test_archives_that_cannot_be_read(tmp_path, capsys):
    with zipfile.ZipFile(tmp_path / "broken.zip", "w") as archive:
        archive.writestr("m/dataset.json", "{}")
    whole = (tmp_path / "broken.zip").read_bytes()
    (tmp_path / "broken.zip").write_bytes(whole.replace(b"PK\1\2", b"PK\0\0"))  # its directory
    (tmp_path / "cut.zip").write_bytes(whole[:-9])
    needs = whole.index(b"PK\1\2") + 6  # the version of the format that the member needs
    (tmp_path / "later.zip").write_bytes(whole[:needs] + bytes([99]) + whole[needs + 1 :])
    names = ("broken", "cut", "later")
    assert main(["doctor", "--verify", *(str(tmp_path / f"{name}.zip") for name in names)]) == 1
    said = capsys.readouterr()
    for name in names:
        assert re.search(rf"BROKEN .*{name}\.zip it cannot be read as a zip file .*export or copy it again", said.out)
    assert "3 of 3 checks are BROKEN" in said.err


@pytest.mark.parametrize("name", ["checkpoint_final.pth", "checkpoint_best.pth", "postprocessing.pkl"])
def test_a_folder_of_a_model(tmp_path, capsys, monkeypatch, in_tiny, name):
    monkeypatch.chdir(tmp_path)
    assert main(["doctor", "--verify", str(in_tiny.model)]) == 0
    shutil.copytree(in_tiny.model, tmp_path / "model")
    evil = pickle.dumps(Evil()) if name.endswith(".pkl") else evil_checkpoint(tmp_path)
    (tmp_path / "model" / "fold_0" / name).write_bytes(evil)
    assert main(["doctor", "--verify", str(tmp_path / "model")]) == 1
    said = capsys.readouterr()
    (line,) = (line for line in said.out.splitlines() if line.startswith("BROKEN"))
    assert name in line
    assert not (tmp_path / "executed").exists()


def test_a_folder_without_a_model(tmp_path, capsys):
    assert main(["doctor", "--verify", str(tmp_path)]) == 1
    assert "there is no model in this folder" in capsys.readouterr().out


def test_a_checkpoint_by_itself(tmp_path, capsys, in_tiny):
    assert main(["doctor", "--verify", str(in_tiny.model / "fold_0" / "checkpoint_final.pth")]) == 0
    (tmp_path / "evil.pth").write_bytes(evil_checkpoint(tmp_path))
    assert main(["doctor", "--verify", str(tmp_path / "evil.pth"), str(tmp_path / "none.pth")]) == 1
    said = capsys.readouterr().out
    assert "a Python object (posix.mkdir)" in said
    assert "there is no such file" in said


def test_what_lies_behind_links_is_verified(in_tiny, tmp_path, monkeypatch, capsys):
    """A fold may be a link to another disk, and a link may lead back to where it lies."""
    monkeypatch.chdir(tmp_path)
    elsewhere, model = tmp_path / "elsewhere", tmp_path / "model"
    shutil.copytree(in_tiny.model, model)
    (model / "fold_0").rename(elsewhere)
    (model / "fold_0").symlink_to(elsewhere)
    (elsewhere / "back").symlink_to(model)
    assert main(["doctor", "--verify", str(model)]) == 0
    assert capsys.readouterr().out.count("checkpoint_final.pth") == 1
    torch.save({"extra": Evil()}, elsewhere / "checkpoint_final.pth")
    assert main(["doctor", "--verify", str(model)]) == 1
    assert not Path("executed").exists()
