"""Every system of the comparison goes all the way with stock commands, on registered and on unpaired scans."""

import os
import shutil
from pathlib import Path

import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion import phantom
from nnunet_cmc.trainers.compared import COMPARED

pytestmark = pytest.mark.slow
PLANS = "CMCNNUNetSmallPlans"
NAME = "Dataset997_Systems"


@pytest.fixture(scope="module", params=["registered", "unpaired"])
def planned(request, run_command, tmp_path_factory) -> tuple[str, dict, Path]:
    """The layout, the environment, and a folder of cases to predict, of which some lack a modality."""
    root = tmp_path_factory.mktemp(request.param)
    folders = {f"nnUNet_{part}": str(root / part) for part in ("raw", "preprocessed", "results")}
    one = {"nnUNet_n_proc_DA": "0", "nnUNet_def_n_proc": "1", "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    environment = {**os.environ, **one, **folders}
    for folder in folders.values():
        Path(folder).mkdir()
    scans = phantom.generate(root / "scans", labeled=4, unlabeled=2, test=2, layout=request.param, seed=0)
    listed = {
        f"--{key.replace('_', '-')}": [f"{name}={value}" for name, value in content.items()]
        if isinstance(content, dict)
        else [content]
        for key, content in scans.items()
        if key in ("images", "labels", "classes", "test_images", "test_labels")
    }
    arguments = [word for option, values in listed.items() for word in (option, *values)]
    for command in (
        ("nnunet_cmc", "convert", "folders", "-d", 997, "--name", "Systems", *arguments),
        ("nnunet_cmc", "split", "-d", 997, "--labeled", "1.0", "--val", "0.5"),
        ("nnUNetv2_plan_and_preprocess", "-d", 997, "-pl", "CMCPlannerNNUNetSmall", "-fpe", "CMCFingerprintExtractor",
         "-c", "3d_fullres", "-npfp", 1, "-np", 1),
    ):  # fmt: skip
        run_command(*command, environment=environment)
    cases = root / "cases"
    shutil.copytree(root / "raw" / NAME / "imagesTs", cases)
    for file in sorted(cases.glob("*_0001.nii.gz")):
        if request.param == "registered":  # the same case, scanned in MR alone
            shutil.copyfile(file, cases / f"alone_{file.name}")
    return request.param, environment, cases


@pytest.mark.parametrize("trainer", [*COMPARED, "CMCTrainer", "CMCTrainerPaper"])
def test_it_trains_and_predicts_any_subset(planned, run_command, trainer, tmp_path):
    layout, environment, cases = planned
    options = ("-tr", f"{trainer}_smoke", "-p", PLANS, "-device", "cpu")
    refused = layout == "unpaired" and trainer == "EFCDTrainer"
    output = run_command("nnUNetv2_train", 997, "3d_fullres", 0, *options, environment=environment, fails=refused)
    if refused:
        assert "EFCDTrainer_smoke needs labelled cases with several modalities on one grid" in output
        return
    run_command(
        "nnUNetv2_predict", "-d", 997, "-c", "3d_fullres", "-f", 0, *options, "-i", cases, "-o", tmp_path,
        "-npp", 0, "-nps", 0, "--disable_tta", environment=environment,
    )  # fmt: skip
    expected = {file.name[: -len("_0000.nii.gz")] for file in cases.iterdir()}
    assert {file.name.removesuffix(".nii.gz") for file in tmp_path.glob("*.nii.gz")} == expected
    for file in tmp_path.glob("*.nii.gz"):
        scan = next(cases.glob(f"{file.name.removesuffix('.nii.gz')}_000*"))
        assert sitk.ReadImage(str(file)).GetSize() == sitk.ReadImage(str(scan)).GetSize()
