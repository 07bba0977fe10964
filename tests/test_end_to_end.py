"""The whole path with stock commands as subprocesses: the demo with the shortest training, and scans that are not
registered or lack modalities.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sysconfig
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import SimpleITK as sitk
import torch
from processes import children, fork_commands, kill_with_workers, wait_for
from walk import NAME, ON_THE_CPU, VARIABLES, readme_command, walk_to_training

from nnunet_cmc.commands import demo_steps
from nnunet_cmc.dataset_conversion import phantom

SMALL = "CMCPlannerNNUNetSmall", "CMCNNUNetSmallPlans"
LAYOUTS = {  # spacing of the scans, planner and plans, number of subjects
    "unpaired": ((5.0, 5.0, 5.0), *SMALL, {"labeled": 4, "unlabeled": 2, "test": 2}),
    # stacks of ten thick slices
    "misaligned": ((14.0, 9.0, 9.0), "CMCPlannerNNUNet", "CMCNNUNetPlans", {"labeled": 2, "unlabeled": 1, "test": 1}),
    "missing": ((6.0, 6.0, 6.0), *SMALL, {"labeled": 4, "unlabeled": 2, "test": 2}),
}


@pytest.fixture(scope="session")
def predict(run_command):
    """``predict(cases, output, environment)`` -> output of nnUNetv2_predict with the demo's model."""

    def run(cases: Path, output: Path, environment: dict, fails=False) -> str:
        return run_command(
            "nnUNetv2_predict", "-d", demo_steps.DATASET_ID, "-c", "3d_fullres", "-f", 0, "-tr", "CMCTrainer_smoke",
            "-p", demo_steps.PLANS, "-i", cases, "-o", output, "-device", "cpu", "-npp", 1, "-nps", 1, "--disable_tta",
            environment=environment, fails=fails,
        )  # fmt: skip

    return run


@pytest.fixture(scope="module")
def demo(tmp_path_factory) -> demo_steps.Demo:
    """The demo, run to its end with six training iterations on fewer subjects and coarser scans."""
    with pytest.MonkeyPatch.context() as patch:
        for variable in VARIABLES:
            patch.delenv(variable, raising=False)
        for variable, value in ON_THE_CPU.items():
            patch.setenv(variable, value)
        patch.setattr(demo_steps, "TRAINER", "CMCTrainer_smoke")
        patch.setattr(demo_steps, "SUBJECTS", {"labeled": 3, "unlabeled": 1, "test": 2})
        patch.setattr(phantom, "generate", partial(phantom.generate, spacing=(4.0, 4.0, 4.0)))
        steps = demo_steps.Demo(tmp_path_factory.mktemp("demo") / "out", seed=0)
        steps.run()
    return steps


def test_demo_reports_and_leaves_a_normal_nnunet_model(demo):
    result = json.loads((demo.output / "demo.json").read_text())
    assert set(result["mean_dice"]) == {"both", "CT", "MR"}
    assert all(0 <= value <= 1 for value in result["mean_dice"].values())
    assert set(result["dice"]["both"]) == set(phantom.CLASSES)
    assert (demo.output / "demo.png").stat().st_size > 20_000
    model = demo.output / "results" / demo.dataset.name / "CMCTrainer_smoke__CMCNNUNetSmallPlans__3d_fullres"
    assert (model / "plans.json").is_file()
    assert (model / "fold_0" / "checkpoint_final.pth").is_file()
    assert (model / "fold_0" / "progress.png").is_file()
    assert (model / "fold_0" / "validation" / "summary.json").is_file()
    log = "".join(file.read_text() for file in (model / "fold_0").glob("training_log*"))
    for word in ("CT: 2 labelled and 1 unlabelled", "supervised", "csc", "cac", "alpha", "beta"):
        assert word in log
    preprocessed = demo.output / "preprocessed" / demo.dataset.name
    (unlabeled,) = (preprocessed / "CMCNNUNetSmallPlans_3d_fullres_unlabeled").glob("*.pkl")
    (pseudo_label,) = (model / "fold_0" / "pseudo_labels").rglob("*.b2nd")
    assert pseudo_label.name == f"{unlabeled.stem}_seg.b2nd"


def test_a_finished_training_can_be_continued(demo, run_command):
    """With --c nnU-Net loads the final checkpoint, finds nothing left to train, and validates."""
    output = run_command(
        "nnUNetv2_train", demo_steps.DATASET_ID, "3d_fullres", 0, "-tr", "CMCTrainer_smoke", "-p", demo_steps.PLANS,
        "-device", "cpu", "--c", environment=demo.environment,
    )  # fmt: skip
    assert "Training done." in output
    assert "Mean Validation Dice" in output
    assert "Epoch " not in output


def test_preprocessing_that_is_killed_with_its_workers_and_started_again_at_once(demo, run_command, tmp_path):
    preprocessed = tmp_path / demo.dataset.name
    shutil.copytree(demo.output / "preprocessed" / demo.dataset.name, preprocessed)
    environment = {**demo.environment, "nnUNet_preprocessed": str(tmp_path)}
    labeled = preprocessed / "CMCNNUNetSmallPlans_3d_fullres"
    before = sorted(file.name for file in labeled.iterdir())
    shutil.rmtree(labeled)
    arguments = ["-d", str(demo_steps.DATASET_ID), "-plans_name", demo_steps.PLANS, "-c", "3d_fullres", "-np", "2"]
    command = [Path(sysconfig.get_path("scripts")) / "nnUNetv2_preprocess", *arguments]
    killed = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    kill_with_workers(killed.pid, 2, lambda: list(labeled.glob("*.b2nd")))
    run_command("nnUNetv2_preprocess", *arguments, environment=environment)
    assert sorted(file.name for file in labeled.iterdir()) == before


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


def test_a_table_of_systems_in_one_command(demo, run_command, tmp_path):
    """CMCTrainer_smoke is trained already, SupTrainer_smoke is not, the third refuses a network without adapters."""
    names = ["SupTrainer_smoke", "CMCTrainer_smoke", "CMCTrainerPaper_adapters_smoke"]
    command = [
        "nnunet_cmc", "compare", "-d", demo_steps.DATASET_ID, "-p", demo_steps.PLANS, "--folds", 0, "--device", "cpu",
        "--disable_tta", "-np", 1, "-o", tmp_path / "table", "--trainers",
    ]  # fmt: skip
    output = run_command(*command, *names, environment=demo.environment, prepare=(fork_commands,))
    assert "Evaluated on the 2 test cases of" in output
    assert "Left: 2 trainings, 3 predictions, about " in output, "as its trial took"
    assert "SupTrainer_smoke, fold 0: 5 cases left, about " in output
    assert output.count("$ nnUNetv2_train") == output.count("$ nnUNetv2_predict") == 2
    assert (
        "CMCTrainerPaper_adapters_smoke has no result: (fold 0) Adapters belong to a transformer, which the encoder"
        in output
    )
    table = (tmp_path / "table" / "comparison.md").read_text()
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:7]]
    assert header[1:] == [
        f"{shown}: {name}" for shown in ("CT", "MR", "CT+MR") for name in (*phantom.CLASSES, "average")
    ]
    assert [row[0] for row in rows] == names
    assert all("±" in cell for row in rows[:2] for cell in row[1:])
    assert set(rows[2][1:]) == {"-"}
    assert "Difference to SupTrainer_smoke" in table
    for name in ("comparison.tex", "comparison.csv", "report.html"):
        assert "CMCTrainer" in (tmp_path / "table" / name).read_text()
    demo_dice = json.loads((demo.output / "demo.json").read_text())["dice"]["CT"]
    found = json.loads((tmp_path / "table" / "comparison.json").read_text())["predictions"]["CMCTrainer_smoke"]["CT"]
    assert {name: found["Dice"][name]["mean"] for name in demo_dice} == pytest.approx(demo_dice), "the demo's own"

    again = run_command(*command, *names[:2], environment=demo.environment)
    assert "Nothing is left to train or to predict." in again
    assert "$" not in again


@pytest.mark.slow
def test_two_machines_one_of_which_is_killed(demo, run_command, tmp_path):
    """torchrun on two "machines" of this one: killed in its second epoch and started again, one joins the other, and
    the training goes on after the first epoch.
    """
    environment = {
        **demo.environment, "nnUNet_results": str(tmp_path), "NNUNET_CMC_SEED": "0", "NNUNET_CMC_EPOCHS": "3",
        "NNUNET_CMC_ITERATIONS": "4", "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    }  # fmt: skip
    torchrun = Path(sysconfig.get_path("scripts")) / "torchrun"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        torchrun, "--nnodes", "2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-endpoint",
        f"127.0.0.1:{port}", "--rdzv-id", "test", "--max-restarts", "2", "-m", "nnunet_cmc", "train",
        str(demo_steps.DATASET_ID), "3d_fullres", "0", "-tr", "CMCTrainer_cmcbudget", "-p", demo_steps.PLANS,
        "-device", "cpu", "--c",
    ]  # fmt: skip
    logs = [tmp_path / f"machine{i}.txt" for i in range(2)]

    def start(log: Path) -> subprocess.Popen:
        with log.open("a") as stream:
            return subprocess.Popen(command, env=environment, stdout=stream, stderr=subprocess.STDOUT)

    def details() -> str:
        return "".join(log.read_text() for log in tmp_path.rglob("training_log_*.txt"))

    machines = [start(logs[0])]
    try:
        wait_for(lambda: is_listening(port))  # the first to come holds what both agree on, and is not the one to die
        machines.append(start(logs[1]))
        wait_for(lambda: "Epoch 1 \n" in details())
        for victim in [machines[1].pid, *children(machines[1].pid)]:
            os.kill(victim, signal.SIGKILL)
        assert machines[1].wait() == -signal.SIGKILL
        machines[1] = start(logs[1])
        for machine in machines:
            assert machine.wait(400) == 0
    finally:
        for machine in machines:
            machine.kill()
    assert [log.read_text().count("Training done.") for log in logs] == [1, 1]
    begun = [details().count(f"Epoch {epoch} \n") for epoch in range(3)]
    assert begun == [1, 2, 1], "the first is not trained again"
    (checkpoint,) = tmp_path.rglob("checkpoint_final.pth")
    assert torch.load(checkpoint, weights_only=False)["current_epoch"] == 3


def test_a_second_demo_does_not_touch_the_first(demo):
    with pytest.raises(ValueError, match="is not empty"):
        demo_steps.Demo(demo.output, seed=0)


@pytest.fixture(scope="module")
def mixed(demo, predict, tmp_path_factory) -> tuple[Path, Path, str]:
    """New cases in one folder, with both files, only CT, and only MR, and on a grid of their own; and predictions."""
    cases, output = tmp_path_factory.mktemp("mixed"), tmp_path_factory.mktemp("predicted")
    files = sorted((demo.dataset / "imagesTs").iterdir())
    shutil.copy(files[0], cases / "both_0000.nii.gz")
    shutil.copy(files[1], cases / "both_0001.nii.gz")
    shutil.copy(files[2], cases / "onlyCT_0000.nii.gz")
    turned = sitk.DICOMOrient(sitk.ReadImage(str(files[3])), "PIR")
    sitk.WriteImage(turned[:50, 3:, :], str(cases / "onlyMR_0001.nii.gz"))
    return cases, output, predict(cases, output, demo.environment)


def test_cases_of_any_modalities_in_one_folder_are_predicted_on_their_own_grids(mixed):
    cases, output, _ = mixed
    for case, file in (("both", "both_0000"), ("onlyCT", "onlyCT_0000"), ("onlyMR", "onlyMR_0001")):
        scan, prediction = sitk.ReadImage(str(cases / f"{file}.nii.gz")), sitk.ReadImage(str(output / f"{case}.nii.gz"))
        assert prediction.GetSize() == scan.GetSize()
        np.testing.assert_allclose(prediction.GetSpacing(), scan.GetSpacing(), rtol=1e-5)
        np.testing.assert_allclose(prediction.GetOrigin(), scan.GetOrigin(), atol=1e-3)
        np.testing.assert_allclose(prediction.GetDirection(), scan.GetDirection(), atol=1e-5)
        assert set(np.unique(sitk.GetArrayFromImage(prediction))) <= {0, *phantom.CLASSES.values()}


def test_a_case_without_any_modality_is_refused(demo, predict, tmp_path):
    scan = sitk.ReadImage(str(next((demo.dataset / "imagesTs").iterdir())))
    (tmp_path / "cases").mkdir()
    sitk.WriteImage(scan * 0, str(tmp_path / "cases" / "nothing_0001.nii.gz"))
    output = predict(tmp_path / "cases", tmp_path / "out", demo.environment, fails=True)
    assert "Case nothing is empty: all voxels of" in output
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_a_prediction_that_cannot_be_written_fails(demo, predict, tmp_path):
    (tmp_path / "cases").mkdir()
    shutil.copy(next((demo.dataset / "imagesTs").glob("*_0000.nii.gz")), tmp_path / "cases" / "ct_0000.nii.gz")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "ct.nii.gz").mkdir()
    output = predict(tmp_path / "cases", tmp_path / "out", demo.environment, fails=True)
    assert f"IsADirectoryError: [Errno 21] Is a directory: '{tmp_path / 'out' / 'ct.nii.gz'}'" in output
    assert not list((tmp_path / "out" / "ct.nii.gz").iterdir())


def test_a_modality_that_the_model_has_not_is_refused(demo, predict, tmp_path):
    (tmp_path / "cases").mkdir()
    shutil.copy(next((demo.dataset / "imagesTs").iterdir()), tmp_path / "cases" / "pet_0002.nii.gz")
    output = predict(tmp_path / "cases", tmp_path / "out", demo.environment, fails=True)
    assert "pet_0002.nii.gz is of channel 2, but the dataset has 2 channel(s), 0 to 1 (CT, MR): rename" in output
    assert not list((tmp_path / "out").glob("*.nii.gz"))


def test_training_without_a_folder_for_results(demo, run_command):
    environment = {name: value for name, value in demo.environment.items() if name != "nnUNet_results"}
    output = run_command(
        "nnUNetv2_train", demo_steps.DATASET_ID, "3d_fullres", 0, "-tr", "CMCTrainer_smoke", "-p", demo_steps.PLANS,
        "-device", "cpu", environment=environment, fails=True,
    )  # fmt: skip
    assert "nnUNet_results is not set: set this variable to nnU-Net's folder of that name." in output


def test_region_based_labels_are_refused_before_any_work(demo, run_command, tmp_path):
    environment = {
        **demo.environment,
        "nnUNet_raw": str(tmp_path / "raw"),
        "nnUNet_preprocessed": str(tmp_path / "new"),
    }
    raw = tmp_path / "raw" / demo.dataset.name
    shutil.copytree(demo.dataset, raw)
    (tmp_path / "new").mkdir()
    dataset_json = json.loads((raw / "dataset.json").read_text())
    dataset_json |= {"labels": {"background": 0, "all": [1, 2, 3, 4], "liver": 1}, "regions_class_order": [2, 1]}
    (raw / "dataset.json").write_text(json.dumps(dataset_json))
    output = run_command(
        "nnUNetv2_plan_and_preprocess", "-d", demo_steps.DATASET_ID, "-pl", "CMCPlannerNNUNetSmall",
        "-fpe", "CMCFingerprintExtractor", "-c", "3d_fullres", environment=environment, fails=True,
    )  # fmt: skip
    assert "CMCFingerprintExtractor does not support region-based labels, which dataset.json has: use one" in output
    assert not list((tmp_path / "new").rglob("*.*"))


def test_our_trainer_refuses_plans_that_are_not_ours(demo, run_command, tmp_path):
    folder = demo.output / "preprocessed" / demo.dataset.name
    plans = json.loads((folder / "CMCNNUNetSmallPlans.json").read_text())
    plans["plans_name"] = "nnUNetPlans"
    plans["configurations"]["3d_fullres"]["architecture"]["network_class_name"] = "somewhere.PlainConvUNet"
    (folder / "foreign.json").write_text(json.dumps(plans))
    output = run_command(
        "nnUNetv2_train", demo_steps.DATASET_ID, "3d_fullres", 0, "-tr", "CMCTrainer_smoke", "-p", "foreign",
        "-device", "cpu", environment=demo.environment, fails=True,
    )  # fmt: skip
    assert "CMCTrainer_smoke cannot train the plans nnUNetPlans" in output


def lose_a_channel(raw: Path) -> None:
    (raw / "imagesTr" / "subject_001_0001.nii.gz").unlink()


def crop_a_channel(raw: Path) -> None:
    file = str(raw / "imagesTr" / "subject_001_0001.nii.gz")
    sitk.WriteImage(sitk.ReadImage(file)[2:], file)


def label_a_voxel_unknown(raw: Path) -> None:
    file = str(raw / "labelsTr" / "subject_001.nii.gz")
    label = sitk.ReadImage(file)
    label[0, 0, 0] = 9
    sitk.WriteImage(label, file)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lose_a_channel, "Case subject_001: the file of channel 1 (MR) is missing"),
        (crop_a_channel, "subject_001_0001.nii.gz is not on the grid of"),
        (label_a_voxel_unknown, "subject_001.nii.gz has the label value(s) 9, but dataset.json names 0, 1, 2, 3, 4"),
    ],
)
def test_bad_scans_stop_planning(demo, run_command, tmp_path, damage, sentence):
    environment = {**demo.environment, **{v: str(tmp_path / v) for v in VARIABLES}}
    raw, preprocessed = (Path(environment[v]) / demo.dataset.name for v in VARIABLES[:2])
    shutil.copytree(demo.dataset, raw)
    preprocessed.mkdir(parents=True)
    shutil.copy(demo.output / "preprocessed" / demo.dataset.name / "dataset_fingerprint.json", preprocessed)
    damage(raw)
    output = run_command(
        "nnUNetv2_plan_and_preprocess", "-d", demo_steps.DATASET_ID, "-pl", "CMCPlannerNNUNetSmall", "-c", "3d_fullres",
        environment=environment, fails=True,
    )  # fmt: skip
    assert sentence in output
    assert not list(preprocessed.glob("*Plans.json"))


class Walked(NamedTuple):
    layout: str
    root: Path  # with nnU-Net's folders, and those of predictions
    environment: dict
    train: list[str]  # the command


@pytest.fixture(scope="module")
def walked(request, run_command, tmp_path_factory) -> Walked:
    """Phantoms of a layout: converted, planned, trained and predicted."""
    root = tmp_path_factory.mktemp(request.param)
    spacing, planner, plans, subjects = LAYOUTS[request.param]
    environment = walk_to_training(run_command, root, request.param, spacing, planner, **subjects)
    trainer = {"-tr": ["CMCTrainer_smoke"], "-p": [plans]}
    train = [*readme_command("nnUNetv2_train", trainer), "-device", "cpu"]
    run_command(*train, environment=environment)
    files = {"-i": [root / "nnUNet_raw" / NAME / "imagesTs"], "-o": [root / "predicted"]}
    predict = readme_command("nnUNetv2_predict", trainer | files)
    run_command(*predict, "-device", "cpu", "-npp", 0, "-nps", 0, environment=environment)
    return Walked(request.param, root, environment, train)


@pytest.mark.parametrize("walked", LAYOUTS, indirect=True)
def test_scans_of_any_layout_go_all_the_way(walked, run_command):
    raw = walked.root / "nnUNet_raw" / NAME
    references = raw / "labelsTs"
    scans = {file.name[: -len("_0000.nii.gz")]: file for file in (raw / "imagesTs").iterdir()}
    assert {file.name for file in (walked.root / "predicted").glob("*.nii.gz")} == {f"{case}.nii.gz" for case in scans}
    for case, file in scans.items():
        predicted = sitk.ReadImage(str(walked.root / "predicted" / f"{case}.nii.gz"))
        assert predicted.GetSize() == sitk.ReadImage(str(file)).GetSize()
    evaluate = readme_command("nnunet_cmc evaluate", {"-r": [references], "-p": [walked.root / "predicted"]})
    output = run_command(*evaluate, "-np", 1, environment=walked.environment)
    assert "CT" in output
    assert "MR" in output
    labeled = {file.name.removesuffix("_seg.b2nd") for file in walked.root.rglob("pseudo_labels/*/*")}
    assert labeled == {file.name[: -len("_0000.nii.gz")] for file in (raw / "imagesUn").iterdir()}


@pytest.mark.parametrize("walked", ["unpaired"], indirect=True)
def test_a_modality_without_labels_stops_training(walked, run_command):
    file = walked.root / "nnUNet_preprocessed" / NAME / "splits_final.json"
    fold = json.loads(file.read_text())[0]
    moved = [case for case in fold["train"] if case.endswith("_MR")]
    poor = {"train": sorted({*fold["train"]} - {*moved}), "val": fold["val"], "unlabeled": moved}
    file.write_text(json.dumps([fold, poor]))
    program, dataset, configuration, _, *options = walked.train
    other_fold = program, dataset, configuration, 1, *options
    output = run_command(*other_fold, environment=walked.environment, fails=True)
    assert "Modality MR (channel 1) has no labelled case in fold 1" in output
