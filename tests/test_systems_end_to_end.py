"""Every system of the comparison goes all the way with stock commands, on registered and on unpaired scans."""

import json
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
import SimpleITK as sitk
from walk import DATASET, NAME, walk_to_training

from nnunet_cmc.trainers.compared import COMPARED

PLANS = "CMCNNUNetSmallPlans"
TRAINERS = (*COMPARED, "CMCTrainer", "CMCTrainerPaper")
NIGHTLY = {  # the others, and EFCDTrainer on both, run in CI
    *(("registered", name) for name in ("UMMLTrainer", "MMFormerTrainer", "UMMKDTrainer", "CPSTrainer", "CMCTrainer")),
    *(("unpaired", name) for name in ("SupTrainer", "CMLTrainer", "MeanTeacherTrainer", "PseudoLabelTrainer")),
    ("unpaired", "CMCTrainerPaper"),
}


@pytest.fixture(scope="module")
def planned(run_command, tmp_path_factory) -> Callable[[str, str], tuple[dict, Path]]:
    """``planned(layout, planner)`` -> environment, and a folder of cases to predict, of which some lack a modality."""

    @cache
    def plan(layout: str, planner: str) -> tuple[dict, Path]:
        root = tmp_path_factory.mktemp(layout)
        subjects = {"labeled": 4, "unlabeled": 2, "test": 2}
        environment = walk_to_training(run_command, root, layout, (6.0,) * 3, planner, **subjects)
        cases = root / "cases"
        shutil.copytree(root / "nnUNet_raw" / NAME / "imagesTs", cases)
        for file in sorted(cases.iterdir()):
            if layout == "registered":  # the same case, scanned in one modality alone
                channel = file.name[-len("0000.nii.gz") :]
                shutil.copyfile(file, cases / f"only_{channel[:4]}_{file.name}")
        return environment, cases

    return plan


@pytest.mark.parametrize(
    ("layout", "trainer"),
    [
        pytest.param(layout, trainer, marks=[pytest.mark.slow] * ((layout, trainer) in NIGHTLY))
        for layout in ("registered", "unpaired")
        for trainer in TRAINERS
    ],
)
def test_it_trains_and_predicts_any_subset(planned, run_command, layout, trainer, tmp_path):
    environment, cases = planned(layout, "CMCPlannerNNUNetSmall")
    train_and_predict(run_command, environment, cases, trainer, PLANS, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["registered", "unpaired"])
def test_the_vnet_of_the_paper_does_as_well(planned, run_command, layout, tmp_path):
    """On a smaller patch than the paper's, with which a CPU takes an hour: the plans are edited, as a user would."""
    environment, cases = planned(layout, "CMCPlannerVNet")
    file = Path(environment["nnUNet_preprocessed"]) / NAME / "CMCVNetPlans.json"
    plans = json.loads(file.read_text())
    configuration = plans["configurations"]["3d_fullres"]
    for patched in (configuration, configuration["architecture"]["arch_kwargs"]):
        patched["patch_size"] = [32, 32, 32]
    file.write_text(json.dumps(plans))
    train_and_predict(run_command, environment, cases, "SupTrainer", "CMCVNetPlans", tmp_path)


def train_and_predict(
    run_command: Callable, environment: dict, cases: Path, trainer: str, plans: str, output: Path
) -> None:
    options = ("-tr", f"{trainer}_smoke", "-p", plans, "-device", "cpu")
    refused = trainer == "EFCDTrainer" and not any(cases.glob("only_*"))  # unpaired
    said = run_command("nnUNetv2_train", DATASET, "3d_fullres", 0, *options, environment=environment, fails=refused)
    if refused:
        assert "EFCDTrainer_smoke needs labelled cases with several modalities on one grid" in said
        return
    run_command(
        "nnUNetv2_predict", "-d", DATASET, "-c", "3d_fullres", "-f", 0, *options, "-i", cases, "-o", output,
        "-npp", 0, "-nps", 0, "--disable_tta", environment=environment,
    )  # fmt: skip
    expected = {file.name[: -len("_0000.nii.gz")] for file in cases.iterdir()}
    assert {file.name.removesuffix(".nii.gz") for file in output.glob("*.nii.gz")} == expected
    for file in output.glob("*.nii.gz"):
        scan = next(cases.glob(f"{file.name.removesuffix('.nii.gz')}_000*"))
        assert sitk.ReadImage(str(file)).GetSize() == sitk.ReadImage(str(scan)).GetSize()
