"""What the recommended planner plans for GPUs of several sizes, and the memory of a step, counted without data.

    python benchmarks/planned_memory.py [--memory 8 11 24 80] [--planner CMCPlannerNNUNet] [--classes 16]

Plans of two kinds of scans, each in two modalities. *estimate* is the planner's; *counted* adds up, in mixed precision,
weights, gradients and moments of AdamW (16 bytes a parameter), the teacher's weights (4), and all that a step's forward
pass leaves for the backward pass: of labelled pairs, fused and one modality alone, and of half as many unlabelled ones,
with the losses' softmax and labels at full resolution (12 bytes a class and voxel). What a convolution needs beside is
not counted.
"""

import argparse
import tempfile
from unittest import mock

import torch
from measure import print_table, quiet
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from workspace import DATASET, Workspace

from nnunet_cmc.data.loading.fusion import FusedAndPart
from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import SuperviseDeep
from nnunet_cmc.planners import nnunet
from nnunet_cmc.utils.files import read_json, write_json
from nnunet_cmc.utils.formatting import dimensions

SCANS = {  # spacing (mm) and voxels along D, H, W
    "abdomen, CT and MR": ([3.0, 0.8, 0.8], [120, 512, 512]),
    "brain, MR": ([1.0, 1.0, 1.0], [140, 172, 140]),
}


def kept_bytes(network: nn.Module, rows: int, patch: list[int], unlabeled: int = 0, modalities: int = 2) -> int:
    """Count what a forward pass leaves for the backward one.

    Args:
        network: of tensors without data (``torch.device("meta")``); made half precision.
        rows: samples; for ours registered pairs, each predicted from all modalities and from a part of them.
        patch: sides in voxels.
        unlabeled: further samples, each predicted from each modality alone.
        modalities: channels of the samples.
    """
    network.to(torch.bfloat16)
    own = {parameter.untyped_storage()._cdata for parameter in network.parameters()}
    kept: dict[int, Tensor] = {}  # alive, or its place would be another's

    def note(tensor: Tensor) -> Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    drawn = [FusedAndPart()(tuple(range(modalities)), modalities) for _ in range(rows)]
    fusion = torch.stack([*drawn, *(torch.eye(modalities, dtype=torch.bool) for _ in range(unlabeled))])
    x = torch.empty(len(fusion), modalities, *patch, device="meta", dtype=torch.bfloat16)
    there = torch.ones(len(fusion), modalities, dtype=torch.bool)
    with (
        mock.patch("nnunet_cmc.networks.cmcnet.presence", return_value=there),
        saved_tensors_hooks(note, lambda tensor: tensor),
    ):
        output = network(x, fusion) if isinstance(network, CMCNet) else network(x)  # noqa: F841 - alive, too
    return sum(tensor.untyped_storage().nbytes() for storage, tensor in kept.items() if storage not in own)


def step_gb(plan: dict, classes: int, modalities: int = 2) -> float:
    """Count the memory of a step of ``CMCTrainer_contrastTeacher`` in GB: see above."""
    with torch.device("meta"):
        network = CMCNet(modalities, classes, **plan["architecture"]["arch_kwargs"])
    SuperviseDeep()(network)
    labelled, patch = plan["batch_size"], [int(side) for side in plan["patch_size"]]
    unlabelled = max(1, round(labelled / 2))
    voxels = (2 * labelled + modalities * unlabelled) * classes * torch.Size(patch).numel()
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return 1e-9 * (20 * parameters + kept_bytes(network, labelled, patch, unlabelled, modalities) + 12 * voxels)


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--memory", type=float, nargs="+", default=[8, 11, 24, 80], help="GB (%(default)s)")
    arguments.add_argument("--planner", default="CMCPlannerNNUNet")
    arguments.add_argument("--classes", type=int, default=16, help="with background (%(default)s)")
    args = arguments.parse_args()
    rows = []
    for scans, (spacing, shape) in SCANS.items():
        with tempfile.TemporaryDirectory() as root, quiet():
            workspace = Workspace(root)
            fingerprint = read_json(file := workspace.preprocessed / "dataset_fingerprint.json", "")
            write_json(file, {**fingerprint, "spacings": [spacing] * 6, "shapes_after_crop": [shape] * 6})
            for raw in (workspace.raw, workspace.preprocessed):
                names = {"background": 0} | {f"class {k}": k for k in range(1, args.classes)}
                write_json(raw / "dataset.json", workspace.dataset_json | {"labels": names, "numTraining": 1000})
            for memory in args.memory:
                plan = getattr(nnunet, args.planner)(DATASET, memory).decide()
                configuration = plan["configurations"]["3d_fullres"]
                estimate = plan["memory_reason"].split(" is estimated to take ")[1].split()[0]
                patch = dimensions(configuration["patch_size"])
                counted = f"{step_gb(configuration, args.classes):.1f}"
                rows.append((scans, f"{memory:g}", patch, configuration["batch_size"], estimate, counted))
    print_table(("scans", "GPU (GB)", "patch", "labelled pairs", "estimate (GB)", "counted (GB)"), rows)


if __name__ == "__main__":
    main()
