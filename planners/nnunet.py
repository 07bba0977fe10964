"""Planners that leave every decision on the data to nnU-Net's own, with its U-Net or its residual presets M and L."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from typing import Any

import numpy as np
import torch
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (
    nnUNetPlannerResEncL,
    nnUNetPlannerResEncM,
)
from scipy.optimize import brentq

from nnunet_cmc.data.format.plans_json import FEWEST_SLICES
from nnunet_cmc.planners.base import BasePlanner
from nnunet_cmc.utils.formatting import dimensions, millimetres

WORKERS = "nnUNet_n_proc_DA"


class CMCPlannerNNUNet(BasePlanner):
    """Plan as nnU-Net does: spacing, transposition, patch, topology, normalisation, batch and whether Dice is of it.

    The coarsest axis comes first, as nnU-Net's augmentation of flat patches wants it. A configuration of low resolution
    is not planned, but where nnU-Net would plan one, it takes Dice over the batch at full resolution.

    Args:
        *arguments, **keywords: see :class:`BasePlanner`.
        channels: of the first stage, in place of nnU-Net's 32; all others scale with it.
        patch_size: the largest patch ``(3,)`` in voxels along D, H, W as transposed; nnU-Net's topology for it.
        batch_size: labelled pairs of a step.

    Raises:
        ValueError: see :class:`BasePlanner`; or ``channels``, ``patch_size`` or ``batch_size`` are not whole numbers
            above 0.
    """

    plans_name = "CMCNNUNetPlans"
    learning_rate = 5e-3  # of AdamW at nnU-Net's 32 channels, for trainings much shorter than nnU-Net's
    UNet_base_num_features: int  # of nnU-Net's planner
    UNet_max_features_3d: int
    # None: as nnU-Net decides
    channels: int | None = None
    patch_voxels: int | None = None  # in the largest patch, which has nnU-Net's proportions; patch_size replaces it
    batch_size: int | None = None

    def __init__(self, *arguments, channels=None, patch_size=None, batch_size=None, **keywords):
        sides = [] if patch_size is None else list(patch_size)
        for name, values in (("channels", [channels]), ("patch_size", sides), ("batch_size", [batch_size])):
            if not all(value is None or (type(value) is int and value > 0) for value in values):
                raise ValueError(f"{name} must be whole numbers above 0, not {', '.join(map(str, values))}.")
        if len(sides) not in (0, 3):
            raise ValueError(f"patch_size takes three whole numbers (voxels), not {sides}.")
        super().__init__(*arguments, **keywords)
        self.channels, self.batch_size = channels or self.channels, batch_size or self.batch_size
        self.largest_patch = np.array(sides) if sides else None
        self.UNet_vram_target_GB = self.gpu_memory_target / rows_of_step(len(self.description.modalities))
        self.narrower = self.UNet_base_num_features / (self.channels or self.UNet_base_num_features)
        if self.channels:
            self.UNet_max_features_3d = self.UNet_max_features_3d * self.channels // self.UNet_base_num_features
            self.UNet_base_num_features = self.channels

    def decide(self) -> dict[str, Any]:
        """Return nnU-Net's plans for full resolution, with our network in place of its own.

        Raises:
            ValueError: the scans are flat, or the patch is too small for a U-Net.
        """
        with redirect_stdout(StringIO()):  # it reports on configurations that are none of ours
            super(BasePlanner, self).plan_experiment()
        decided = self.plans
        if "3d_fullres" not in decided["configurations"]:
            raise ValueError(
                f"{self.dataset_name} has scans of one slice at the planned spacing (median), but volumes are needed: "
                "use nnU-Net's own 2d configuration, or give -overwrite_target_spacing."
            )
        configuration = decided["configurations"]["3d_fullres"]
        network = configuration["architecture"]
        patch_size = [int(side) for side in configuration["patch_size"]]
        if len(network["arch_kwargs"]["strides"]) == 1:
            raise ValueError(
                f"The patch {patch_size} is too small for a U-Net, which halves a side of 12 voxels or two of 8: give "
                "a larger patch_size, or a finer -overwrite_target_spacing."
            )
        memory = self._memory_reason(patch_size, configuration["batch_size"], network)
        configuration |= {
            "patch_size": patch_size,
            # narrower networks need a higher rate: its product with the width stays
            "learning_rate": self.learning_rate * self.narrower,
            "architecture": self.architecture(
                patch_size=list(patch_size),
                encoder="unet",
                encoder_kwargs=_encoder_kwargs(self.UNet_class.__name__, network["arch_kwargs"]),
                checkpointing=False,
            ),
        }
        kept = ("original_median_spacing_after_transp", "original_median_shape_after_transp")
        return {
            **{key: decided[key] for key in (*kept, "transpose_forward", "transpose_backward")},
            "configurations": {"3d_fullres": configuration},
            "spacing_reason": self._spacing_reason(),
            "memory_reason": memory,
        }

    def save_plans(self, plans: dict) -> None:
        """Do nothing where nnU-Net saves its plans: :meth:`plan_experiment` completes and writes them."""

    def generate_data_identifier(self, configuration_name: str) -> str:
        """Name the folder of preprocessed cases by these plans; nnU-Net's residual presets would name its own's."""
        return f"{self.plans_identifier}_{configuration_name}"

    @staticmethod
    def static_estimate_VRAM_usage(*arguments):  # noqa: N802 - nnU-Net's name
        """Estimate as nnU-Net does, on networks whose weights take neither memory nor time."""
        with torch.device("meta"), _one_thread():
            return ExperimentPlanner.static_estimate_VRAM_usage(*arguments)

    def get_plans_for_configuration(self, spacing, median_shape, *arguments) -> dict:
        """Plan a configuration as nnU-Net does for images that are no larger than the largest patch; none in 2-D.

        Patches have four slices or more, for which scans of fewer are padded.
        """
        if len(spacing) == 2:
            return {}
        shape = np.maximum(median_shape, FEWEST_SLICES)
        voxels = None if self.largest_patch is not None else self.patch_voxels
        limit = self.largest_patch if voxels is None else box_of_volume(voxels, np.array(spacing), shape, FEWEST_SLICES)
        image = shape if limit is None else np.minimum(shape, limit)
        plan = super().get_plans_for_configuration(spacing, image, *arguments)
        while limit is not None and _exceeds(plan["patch_size"], limit, voxels):
            image = image - np.greater(plan["patch_size"], limit)  # nnU-Net had rounded up to what its strides divide
            plan = super().get_plans_for_configuration(spacing, image, *arguments)
        plan["patch_size"] = np.maximum(plan["patch_size"], FEWEST_SLICES)  # an axis of so few is never halved
        plan["median_image_size_in_voxels"] = median_shape
        plan["batch_size"] = self.batch_size or plan["batch_size"]
        return plan

    def _spacing_reason(self) -> str:
        if given := self.given_spacing():
            return given[1]
        spacing, median = self.determine_fullres_target_spacing(), np.median(self.dataset_fingerprint["spacings"], 0)
        if np.allclose(spacing, median):
            return f"{millimetres(spacing)}, the median of the scans, as nnU-Net plans."
        return (
            f"{millimetres(spacing)}, as nnU-Net plans where the scans have few and thick slices (their median is "
            f"{millimetres(median)})."
        )

    def _memory_reason(self, patch_size: Sequence[int], batch_size: int, network: dict) -> str:
        features = self.static_estimate_VRAM_usage(
            patch_size,
            len(self.description.modalities),
            len(self.description.labels),
            network["network_class_name"],
            network["arch_kwargs"],
            network["_kw_requires_import"],
        )
        gb_of_row = features / self.UNet_reference_val_3d * self.UNet_reference_val_corresp_GB
        gb_of_row /= self.UNet_reference_val_corresp_bs_3d
        times = rows_of_step(len(self.description.modalities))
        rows = times * batch_size
        return (
            f"training on {rows} patches of {dimensions(patch_size)} voxels a step ({times} times nnU-Net's "
            f"{batch_size}) is estimated to take {rows * gb_of_row:.1f} GB of GPU memory, for a target of "
            f"{self.gpu_memory_target:g} GB (-gpu_memory_target sets it)."
        )


class CMCPlannerNNUNetResEncM(CMCPlannerNNUNet, nnUNetPlannerResEncM):
    """Plan as nnU-Net's residual preset M does."""

    plans_name = "CMCNNUNetResEncMPlans"


class CMCPlannerNNUNetResEncL(CMCPlannerNNUNet, nnUNetPlannerResEncL):
    """Plan as nnU-Net's residual preset L does, for a GPU of 80 GB: three times what nnU-Net's preset is for."""

    plans_name = "CMCNNUNetResEncLPlans"
    gpu_memory_gb = 72


class CMCPlannerNNUNetSmall(CMCPlannerNNUNet):
    """Plan for a machine without a GPU: a quarter of nnU-Net's channels, patches of at most 40^3 voxels, two pairs."""

    plans_name = "CMCNNUNetSmallPlans"
    channels = 8
    patch_voxels = 40**3
    batch_size = 2


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let nnU-Net's estimate compute with one thread, where it would take nnUNet_n_proc_DA, which may be 0."""
    given = os.environ.get(WORKERS)
    os.environ[WORKERS] = "1"
    try:
        yield
    finally:
        del os.environ[WORKERS]
        if given is not None:
            os.environ[WORKERS] = given


def rows_of_step(num_modalities: int) -> int:
    """Return how many patches a step keeps in memory for each one of nnU-Net's: M + 1 of M modalities.

    nnU-Net estimates the memory of a patch from its network's feature maps and fits its batch b. Our step keeps most
    activations in a training with a teacher: of b labelled pairs and half as many unlabelled ones. The encoder has a
    row for each modality, 1.5 M b; the decoder two for each labelled pair, fused and one alone, and one for each
    modality of an unlabelled one, (2 + M / 2) b. M + 1 is the mean of the two, and both are 3 b for two modalities.
    (The teacher sees the unlabelled rows without gradients, so each of its feature maps is freed by the next. With
    whole-scan labels it is less.) So our targets, divided by it, give nnU-Net's own plans. Counted for two modalities
    (``benchmarks/planned_memory.py``, and a test), these patches keep 3.2 times what nnU-Net's keep, and the whole step
    with the teacher's weights stays within 0.8 of the target.
    """
    return num_modalities + 1


def box_of_volume(voxels: int, spacing: np.ndarray, shape: Sequence[float], shortest: int = 1) -> np.ndarray:
    """Compute the sides ``(3,)`` of a box of at most ``voxels`` voxels, equal in mm, within an image of ``shape``.

    These are the proportions of nnU-Net's first patch; where the image is shorter than the box, the other sides grow,
    and where a side would be shorter than ``shortest`` voxels, they shrink.
    """
    if np.prod(shape) <= voxels:
        return np.array(shape)
    fewest = np.minimum(shortest, shape)
    edge = brentq(lambda mm: np.prod(np.clip(mm / spacing, fewest, shape)) - voxels, 0, np.max(shape * spacing))
    return np.floor(np.clip(edge / spacing, fewest, shape) + 1e-6)  # 48 may come as 47.9999999


def _exceeds(patch_size: Sequence[int], limit: np.ndarray, voxels: int | None) -> bool:
    """Tell whether a patch is larger than the sides of ``limit`` and, if they are given, than so many voxels."""
    return bool(np.any(patch_size > limit) and (voxels is None or np.prod(patch_size) > voxels))


def _encoder_kwargs(architecture: str, stock: dict[str, Any]) -> dict[str, Any]:
    blocks = stock.get("n_conv_per_stage") or stock["n_blocks_per_stage"]
    return {
        "architecture": architecture,
        "features_per_stage": list(stock["features_per_stage"]),
        "kernel_sizes": [list(sides) for sides in stock["kernel_sizes"]],
        "strides": [list(sides) for sides in stock["strides"]],
        "blocks_per_stage": list(blocks),
        "blocks_per_stage_decoder": list(stock["n_conv_per_stage_decoder"]),
    }
