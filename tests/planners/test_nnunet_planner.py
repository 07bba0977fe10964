"""Plans that are nnU-Net's own, against its planners on the same fingerprints."""

import json
import os
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
)
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from planned_scans import ESTIMATES, FINGERPRINTS, without_files
from source_files import ROOT

from nnunet_cmc.data.format.plans_json import require_ours
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.planners import base
from nnunet_cmc.planners.nnunet import (
    CMCPlannerNNUNet,
    CMCPlannerNNUNetResEncL,
    CMCPlannerNNUNetResEncM,
    CMCPlannerNNUNetSmall,
    box_of_volume,
)

STOCK = [
    (CMCPlannerNNUNet, ExperimentPlanner, "n_conv_per_stage"),
    (CMCPlannerNNUNetResEncM, nnUNetPlannerResEncM, "n_blocks_per_stage"),
    (CMCPlannerNNUNetResEncL, nnUNetPlannerResEncL, "n_blocks_per_stage"),
]


def plans_of_nnunet(planner, *arguments) -> dict:
    with pytest.MonkeyPatch.context() as patch, torch.device("meta"):  # which gives no weight a value
        patch.setattr(planner, "save_plans", lambda self, plans: None)
        return planner(1, *arguments).plan_experiment()


@pytest.mark.parametrize(("planner", "stock", "blocks"), STOCK)
@pytest.mark.parametrize("name", FINGERPRINTS)
def test_at_three_times_its_target_the_plan_is_that_of_nnunet(scans, name, planner, stock, blocks):
    scans(name, 20 if name == "few voxels" else 1000)  # nnU-Net's batch covers 5 % of all voxels, at most
    expected = plans_of_nnunet(stock)
    target = {ExperimentPlanner: 8, nnUNetPlannerResEncM: 8, nnUNetPlannerResEncL: 24}[stock]
    plans = planner(1, gpu_memory_target_in_gb=3 * target).decide()
    for key in (
        *("transpose_forward", "transpose_backward"),
        *("original_median_spacing_after_transp", "original_median_shape_after_transp"),
    ):
        assert plans[key] == expected[key]
    (ours,), of_nnunet = plans["configurations"].values(), expected["configurations"]["3d_fullres"]
    for key in set(of_nnunet) - {"architecture", "data_identifier", "preprocessor_name"}:
        assert np.array_equal(ours[key], of_nnunet[key]), key
    network, arch = ours["architecture"]["arch_kwargs"], of_nnunet["architecture"]["arch_kwargs"]
    assert network["patch_size"] == ours["patch_size"]
    assert network["encoder"] == "unet"
    assert of_nnunet["architecture"]["network_class_name"].endswith(f".{network['encoder_kwargs']['architecture']}")
    names = {"blocks_per_stage": blocks, "blocks_per_stage_decoder": "n_conv_per_stage_decoder"}
    for key in ("features_per_stage", "kernel_sizes", "strides", *names):
        assert np.array_equal(network["encoder_kwargs"][key], arch[names.get(key, key)]), key


def test_the_fingerprints_are_of_the_kinds_that_matter(scans):
    found = {}
    for name in FINGERPRINTS:
        scans(name)
        found[name] = plans_of_nnunet(ExperimentPlanner)
    full = {name: plans["configurations"]["3d_fullres"] for name, plans in found.items()}
    assert max(full["heart"]["patch_size"]) > 3 * full["heart"]["patch_size"][0], "flat: augmented in 2-D"
    assert [1, 3, 3] in map(list, full["heart"]["architecture"]["arch_kwargs"]["kernel_sizes"])
    assert full["heart, some finer"]["spacing"][0] < 10
    assert full["CT"]["batch_dice"], "there is a configuration of low resolution"
    assert not full["brain"]["batch_dice"]
    assert found["sagittal"]["transpose_forward"] == [2, 0, 1]


@pytest.mark.parametrize(
    ("planner", "rate"), [(CMCPlannerNNUNet, 5e-3), (CMCPlannerNNUNetResEncM, 5e-3), (CMCPlannerNNUNetSmall, 2e-2)]
)
def test_plans(scans, planner, rate, capsys):
    preprocessed = scans("heart")
    plans = planner(1).plan_experiment()
    file = preprocessed / f"{planner.plans_name}.json"
    assert json.loads(file.read_text()) == plans
    printed = capsys.readouterr().out
    assert f"Target spacing: {plans['spacing_reason']}" in printed
    assert f"GPU memory: {plans['memory_reason']}" in printed
    assert "2D U-Net" not in printed
    assert plans["spacing_reason"] == "10 x 1.25 x 1.25 mm, the median of the scans, as nnU-Net plans."
    assert plans["foreground_intensity_properties_per_channel"]["1"]["mean"] == pytest.approx(300, abs=3)
    manager = PlansManager(str(file))
    assert manager.plans_name == planner.plans_name
    assert manager.experiment_planner_name == planner.__name__
    assert manager.available_configurations == ["3d_fullres"]
    assert manager.image_reader_writer_class.__name__ == "CMCReaderWriter"
    configuration = manager.get_configuration("3d_fullres")
    assert configuration.data_identifier == f"{planner.plans_name}_3d_fullres"
    assert configuration.preprocessor_name == "CMCPreprocessor"
    assert configuration.normalization_schemes == ["CTNormalization", "ZScoreNormalization"]
    assert require_ours(plans, "3d_fullres", "a test")["learning_rate"] == rate
    assert configuration.network_arch_class_name == "nnunet_cmc.networks.CMCNet"
    network = configuration.network_arch_init_kwargs
    assert set(network) == {"patch_size", "encoder", "encoder_kwargs", "checkpointing"}
    assert network["checkpointing"] is False


def test_plans_where_batches_are_loaded_in_the_training_process(scans, monkeypatch):
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    ESTIMATES.clear()
    scans("heart")
    assert without_files(CMCPlannerNNUNetSmall)["batch_size"] == 2
    assert os.environ["nnUNet_n_proc_DA"] == "0"  # noqa: SIM112 - nnU-Net's name


def test_says_where_nnunet_leaves_the_median(scans):
    scans("heart, some finer")
    assert CMCPlannerNNUNet(1).decide()["spacing_reason"] == (
        "5 x 1.25 x 1.25 mm, as nnU-Net plans where the scans have few and thick slices (their median is "
        "10 x 1.25 x 1.25 mm)."
    )


def test_a_given_spacing_and_axes_that_stay(scans):
    scans("sagittal")
    plans = CMCPlannerNNUNet(1, overwrite_target_spacing=[1.0, 2.0, 3.0]).decide()
    assert plans["spacing_reason"] == "1 x 2 x 3 mm, as -overwrite_target_spacing says."
    assert list(plans["configurations"]["3d_fullres"]["spacing"]) == [3, 1, 2]
    plans = CMCPlannerNNUNet(1, suppress_transpose=True).decide()
    assert plans["transpose_forward"] == [0, 1, 2]
    assert list(plans["configurations"]["3d_fullres"]["spacing"]) == [0.5, 0.5, 4]


def test_a_transposed_scan_is_preprocessed_with_its_coarsest_axis_first(dataset):
    raw, preprocessed = dataset
    file = preprocessed / "dataset_fingerprint.json"
    thin = {"spacings": [[1.0, 1.0, 4.0]] * 2, "shapes_after_crop": [[40, 48, 14]] * 2}
    file.write_text(json.dumps({**json.loads(file.read_text()), **thin}))
    plans = PlansManager(CMCPlannerNNUNet(1, overwrite_target_spacing=[1.0, 1.0, 2.0]).plan_experiment())
    assert plans.transpose_forward == [2, 0, 1]
    data, _, properties = CMCPreprocessor(verbose=False).run_case(
        [str(raw / "imagesTr" / f"ct_000{channel}.nii.gz") for channel in (0, 1)],
        str(raw / "labelsTr" / "ct.nii.gz"),
        plans,
        plans.get_configuration("3d_fullres"),
        json.loads((raw / "dataset.json").read_text()),
    )
    assert data.shape == (2, 7, 10, 12)  # of 10 x 12 x 14 voxels of 1 mm
    assert np.less_equal(np.array(properties["body_box"])[:, 1], data.shape[1:]).all()
    assert np.array_equal(np.diff(properties["body_box"])[:, 0], data.shape[1:])


class TestReducedForm:
    def test_channels_scale_and_keep_the_cap_in_proportion(self, scans):
        scans("brain")
        full, reduced = (
            without_files(CMCPlannerNNUNet, 32, **options)["architecture"]["arch_kwargs"]["encoder_kwargs"]
            for options in ({}, {"channels": 4, "patch_size": (128, 128, 128)})
        )
        assert full["features_per_stage"] == [32, 64, 128, 256, 320, 320]
        assert reduced["features_per_stage"] == [4, 8, 16, 32, 40, 40]
        assert reduced["strides"] == full["strides"]

    @pytest.mark.parametrize("name", FINGERPRINTS)
    @pytest.mark.parametrize("largest", [(48, 48, 48), (50, 30, 41), (8, 33, 200)])
    def test_the_patch_is_no_larger_than_given(self, scans, name, largest):
        scans(name)
        plan = without_files(CMCPlannerNNUNet, patch_size=largest, batch_size=3, channels=4)
        assert plan["batch_size"] == 3
        assert np.less_equal(plan["patch_size"], largest).all()
        assert not np.any(plan["patch_size"] % strides_of(plan))
        size = np.minimum(largest, plan["median_image_size_in_voxels"])
        assert np.greater(plan["patch_size"], 0.6 * size).all(), "no smaller than its divisibility asks for"
        assert list(plan["median_image_size_in_voxels"]) == list(
            without_files(CMCPlannerNNUNet)["median_image_size_in_voxels"]
        )

    @pytest.mark.parametrize(
        ("options", "sentence"),
        [
            ({"channels": 0}, "channels must be whole numbers above 0, not 0"),
            ({"batch_size": 1.5}, "batch_size must be whole numbers above 0, not 1.5"),
            ({"patch_size": (8, -8, 8)}, "patch_size must be whole numbers above 0, not 8, -8, 8"),
            ({"patch_size": (8, 8)}, r"patch_size takes three whole numbers \(voxels\), not \[8, 8\]"),
        ],
    )
    def test_what_is_given_must_be_whole_numbers(self, dataset, options, sentence):
        with pytest.raises(ValueError, match=sentence):
            CMCPlannerNNUNet(1, **options)

    @pytest.mark.parametrize("name", FINGERPRINTS)
    def test_the_small_planner(self, scans, name):
        scans(name, 1000)
        plan = without_files(CMCPlannerNNUNetSmall)
        assert plan["batch_size"] == 2
        image = min(np.prod(plan["median_image_size_in_voxels"]), 40**3)
        assert 0.5 * image < np.prod(plan["patch_size"]) <= max(40**3, image)
        assert not np.any(plan["patch_size"] % strides_of(plan))
        features = plan["architecture"]["arch_kwargs"]["encoder_kwargs"]["features_per_stage"]
        assert features == [min(8 * 2**stage, 80) for stage in range(len(features))]

    def test_the_small_patch_of_a_cube_and_of_a_stack(self, scans):
        scans("brain")
        assert without_files(CMCPlannerNNUNetSmall)["patch_size"] == [40, 40, 40]
        scans("heart")
        assert without_files(CMCPlannerNNUNetSmall)["patch_size"] == [10, 80, 80]
        assert without_files(CMCPlannerNNUNetSmall, patch_size=(8, 32, 32))["patch_size"] == [8, 32, 32]


@pytest.mark.parametrize("planner", [CMCPlannerNNUNet, CMCPlannerNNUNetSmall])
@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ([8.0, 1.5, 1.5], [2, 200, 180]),
        ([5.0, 0.2, 0.2], [4, 1024, 1024]),
        ([20.0, 0.5, 0.5], [30, 320, 320]),
        ([30.0, 0.1, 0.1], [12, 900, 900]),
    ],
    ids=["two slices", "nnU-Net takes one of four off", "a box of three slices", "a box of one slice"],
)
def test_a_patch_has_four_slices_or_more(dataset, planner, spacing, shape):
    """In every training patch nnU-Net blurs, and it cannot blur three."""
    file = dataset[1] / "dataset_fingerprint.json"
    stacks = {"spacings": [spacing] * 3, "shapes_after_crop": [shape] * 3}
    file.write_text(json.dumps({**json.loads(file.read_text()), **stacks}))
    plan = without_files(planner)
    assert plan["patch_size"][0] >= 4
    if planner is CMCPlannerNNUNetSmall:
        assert np.prod(plan["patch_size"]) <= 40**3
    assert plan["patch_size"] == plan["architecture"]["arch_kwargs"]["patch_size"]
    assert list(plan["median_image_size_in_voxels"]) == shape
    assert not np.any(plan["patch_size"] % strides_of(plan))


def strides_of(plan: dict) -> np.ndarray:
    return np.prod(plan["architecture"]["arch_kwargs"]["encoder_kwargs"]["strides"], axis=0)


@given(
    st.integers(1, 10**6),
    st.tuples(*[st.floats(0.2, 10)] * 3),
    st.tuples(*[st.integers(1, 600)] * 3),
)
def test_a_box_fills_its_volume_and_is_equal_in_mm(voxels, spacing, shape):
    box = box_of_volume(voxels, np.array(spacing), shape)
    assert np.less_equal(box, shape).all()
    assert min(box) >= 1
    assert np.prod(box) <= voxels * (1 + 1e-5)
    grows = (box < shape) & (box > 1)
    if grows.sum() > 1:
        edges, steps = (box * spacing)[grows], np.array(spacing)[grows]
        assert np.ptp(edges) <= steps.max() * (1 + 1e-5)
    assert np.prod(np.minimum(box + 1, shape)) >= min(voxels, np.prod(shape))


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        (
            [1, 200, 200],
            "Dataset001_Test has scans of one slice at the planned spacing .median., but volumes are needed",
        ),
        ([7, 7, 7], r"The patch \[7, 7, 7\] is too small for a U-Net"),
    ],
)
def test_scans_that_no_volume_network_suits(dataset, shape, sentence):
    file = dataset[1] / "dataset_fingerprint.json"
    few = {"spacings": [[1.0, 1.0, 1.0]], "shapes_after_crop": [shape]}
    file.write_text(json.dumps({**json.loads(file.read_text()), **few}))
    with pytest.raises(ValueError, match=sentence):
        CMCPlannerNNUNet(1).plan_experiment()


def test_a_plan_of_other_sizes_as_in_the_docs(scans):
    preprocessed = scans("CT")
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "own_data.md").read_text("utf-8"), re.DOTALL)
    code, file = code.replace("(504,", "(1,"), preprocessed / "CMCMediumPlans.json"
    exec(code, {"__name__": "__mp_main__"})  # as a spawned worker process imports the script
    assert not file.exists()
    exec(code, {"__name__": "__main__"})
    plans = json.loads(file.read_text())["configurations"]["3d_fullres"]
    assert (plans["patch_size"], plans["batch_size"]) == ([16, 128, 128], 2)
    assert plans["architecture"]["arch_kwargs"]["encoder_kwargs"]["features_per_stage"][0] == 16


def test_the_checks_are_those_of_all_planners(dataset):
    with pytest.raises(ValueError, match="CMCPlannerNNUNetSmall plans the preprocessor CMCPreprocessor, but"):
        CMCPlannerNNUNetSmall(1, preprocessor_name="Mine")
    assert all(issubclass(planner, base.BasePlanner) for planner, *_ in STOCK)
