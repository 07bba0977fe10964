"""Every system of the comparison goes all the way with stock commands, on registered and on unpaired scans."""

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
# each in CI on one of the layouts, and nightly on the other
IN_CI = {"unpaired": {"UMMLTrainer", "MMFormerTrainer", "UMMKDTrainer", "CPSTrainer", "EFCDTrainer"}}
IN_CI["registered"] = {*TRAINERS} - {*IN_CI["unpaired"], "CMCTrainer"} | {"EFCDTrainer"}


@pytest.fixture(scope="module")
def planned(run_command, tmp_path_factory) -> Callable[[str], tuple[dict, Path]]:
    """``planned(layout)`` -> the environment, and a folder of cases to predict, of which some lack a modality."""

    @cache
    def plan(layout: str) -> tuple[dict, Path]:
        root = tmp_path_factory.mktemp(layout)
        subjects = {"labeled": 4, "unlabeled": 2, "test": 2}
        environment = walk_to_training(run_command, root, layout, (6.0,) * 3, "CMCPlannerNNUNetSmall", **subjects)
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
        pytest.param(layout, trainer, marks=[] if trainer in IN_CI[layout] else pytest.mark.slow)
        for layout in ("registered", "unpaired")
        for trainer in TRAINERS
    ],
)
def test_it_trains_and_predicts_any_subset(planned, run_command, layout, trainer, tmp_path):
    environment, cases = planned(layout)
    options = ("-tr", f"{trainer}_smoke", "-p", PLANS, "-device", "cpu")
    refused = layout == "unpaired" and trainer == "EFCDTrainer"
    output = run_command("nnUNetv2_train", DATASET, "3d_fullres", 0, *options, environment=environment, fails=refused)
    if refused:
        assert "EFCDTrainer_smoke needs labelled cases with several modalities on one grid" in output
        return
    run_command(
        "nnUNetv2_predict", "-d", DATASET, "-c", "3d_fullres", "-f", 0, *options, "-i", cases, "-o", tmp_path,
        "-npp", 0, "-nps", 0, "--disable_tta", environment=environment,
    )  # fmt: skip
    expected = {file.name[: -len("_0000.nii.gz")] for file in cases.iterdir()}
    assert {file.name.removesuffix(".nii.gz") for file in tmp_path.glob("*.nii.gz")} == expected
    for file in tmp_path.glob("*.nii.gz"):
        scan = next(cases.glob(f"{file.name.removesuffix('.nii.gz')}_000*"))
        assert sitk.ReadImage(str(file)).GetSize() == sitk.ReadImage(str(scan)).GetSize()
