"""The memory that a plan of nnU-Net's network takes, against its target."""

import json

import numpy as np
import pytest
import torch
from planned import network_of, stock_network
from planned_memory import kept_bytes, step_gb
from planned_scans import without_files

from nnunet_cmc.networks.changes import SuperviseDeep
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet, CMCPlannerNNUNetResEncL, CMCPlannerNNUNetResEncM, rows_of_step


@pytest.mark.parametrize(
    ("planner", "name"),
    [
        *((CMCPlannerNNUNet, name) for name in ("brain", "CT", "heart", "few voxels")),
        (CMCPlannerNNUNetResEncM, "brain"),
    ],
)
def test_more_memory_never_gives_less(scans, planner, name):
    scans(name, 1000)
    previous = None
    for target in (6, 12, 24, 48):
        plan = without_files(planner, target)
        voxels = int(np.prod(plan["patch_size"]))
        if previous:
            assert voxels >= previous[0]
            assert plan["batch_size"] >= previous[1] or voxels > previous[0]
        previous = voxels, plan["batch_size"]


def test_the_target_is_shared_by_the_rows_of_a_step(dataset):
    """2 labelled pairs and 1 unlabelled one, each in two views, are the 6 patches of three of nnU-Net's batches."""
    assert [rows_of_step(modalities) for modalities in (2, 3, 4)] == [3, 4, 5]
    planner = CMCPlannerNNUNet(1)
    assert planner.gpu_memory_target == 24
    assert planner.UNet_vram_target_GB == 8
    assert CMCPlannerNNUNetResEncL(1).UNet_vram_target_GB == 3 * CMCPlannerNNUNetResEncM(1).UNet_vram_target_GB


def test_a_step_keeps_the_maps_of_three_times_nnunets_rows():
    """Of two labelled pairs and an unlabelled one, fused and alone, against two rows of nnU-Net's own network."""
    with torch.device("meta"):
        ours = network_of(CMCPlannerNNUNet, 2, 3, 64)
        stock = stock_network(64, 3, deep_supervision=True)
    SuperviseDeep()(ours)
    ratio = kept_bytes(ours, 3, [64] * 3) / kept_bytes(stock, 2, [64] * 3)
    assert rows_of_step(2) <= ratio < 1.1 * rows_of_step(2)


@pytest.mark.parametrize(("name", "target"), [("brain", 8), ("brain", 24), ("CT", 11), ("heart", 24), ("CT", 80)])
def test_a_step_with_unlabelled_rows_and_teacher_keeps_to_the_target(scans, name, target):
    """nnU-Net's estimate leaves about a third of its target for what is not counted: convolutions' own memory."""
    scans(name, 1000)
    assert 0.5 * target < step_gb(without_files(CMCPlannerNNUNet, target), 14) < 0.8 * target


@pytest.mark.parametrize("target", [8, 24])
def test_so_does_one_of_four_modalities(scans, dataset, target):
    """As brain tumours are commonly scanned in; each has a row of its own in the encoder."""
    scans("brain", 1000)
    file = dataset[0] / "dataset.json"
    content = json.loads(file.read_text())
    content["channel_names"] |= {"2": "T2", "3": "FLAIR"}
    file.write_text(json.dumps(content))
    assert 0.4 * target < step_gb(without_files(CMCPlannerNNUNet, target), 4, modalities=4) < 0.8 * target


@pytest.mark.parametrize("planner", [CMCPlannerNNUNet, CMCPlannerNNUNetResEncM])
def test_what_is_said_of_memory_keeps_to_the_target(scans, planner):
    scans("brain")
    reason = planner(1).decide()["memory_reason"]
    before, after = reason.split(" is estimated to take ")
    assert before.startswith("training on 6 patches of ")
    assert before.endswith("a step (3 times nnU-Net's 2)")
    assert 18 < float(after.split()[0]) <= 24
    assert after.endswith("GB of GPU memory, for a target of 24 GB (-gpu_memory_target sets it).")
    twice = planner(1, batch_size=4).decide()["memory_reason"]
    assert float(twice.split(" is estimated to take ")[1].split()[0]) == pytest.approx(
        2 * float(after.split()[0]), 0.01
    )
