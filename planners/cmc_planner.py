"""Planner for CMC: a fixed cube, a self-configured spacing, one 3-D configuration."""

from copy import deepcopy
from typing import Any

import numpy as np
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape

from nnunet_cmc.planners.base import BasePlanner
from nnunet_cmc.planners.spacing import isotropic_spacing


class CMCPlanner(BasePlanner):
    """Plan with the SAM-Med3D ViT-B encoder. Subclasses differ in the attributes of the class.

    Patch and batch are fixed; a training that is estimated to need more than the target of GPU memory computes its
    activations twice instead of keeping them. Axes are never transposed.
    """

    plans_name = "CMCPlans"
    patch_size = 96  # voxels along each axis
    batch_size = 4
    coarsest_spacing: float | None = 1.5  # mm: what the encoder was trained at
    learning_rate = 3e-4  # from scratch
    # GB of each modality's own encoder and decoder, as in the paper (shared ones have their weights once): weights,
    # gradients and AdamW's moments; and what a patch leaves for the backward pass in mixed precision
    gb_of_weights, gb_per_patch = 1.6, 0.51
    # nnU-Net's scheme for a channel -> the one that the encoder was trained with
    normalization: dict[str, str] = {  # noqa: RUF012
        "CTNormalization": "CTPositiveZScoreNormalization",
        "ZScoreNormalization": "PositiveZScoreNormalization",
    }
    encoder = "sam_med3d"
    encoder_kwargs: dict[str, Any] = {  # noqa: RUF012
        "image_size": 96,
        "patch_size": 16,
        "embed_dim": 768,
        "depth": 12,
        "num_heads": 12,
        "global_blocks": [2, 5, 8, 11],
        "window_size": 14,
        "out_channels": 384,
        "axis_order": "zyx",
        "adapters": True,
        "skip_channels": [32, 64, 128],
    }
    decoder_channels: tuple[int, ...] = (16, 32, 64, 128)  # width at stride 2 ** i

    def determine_transpose(self):
        """Choose no transposition: the target spacing is isotropic, and the encoder's axes have a meaning."""
        return [0, 1, 2], [0, 1, 2]

    def determine_normalization_scheme_and_whether_mask_is_used_for_norm(self) -> tuple[list[str], list[bool]]:
        """Choose the encoder's for CT and others; nnU-Net's where a channel's name asks for one (``noNorm``)."""
        schemes, use_mask = super().determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        planned = [self.normalization.get(scheme, scheme) for scheme in schemes]
        return planned, [mask and ours == stock for mask, ours, stock in zip(use_mask, planned, schemes, strict=True)]

    def determine_fullres_target_spacing(self) -> np.ndarray:
        """Return the target spacing ``(3,)`` in mm along D, H, W."""
        return self._spacing_and_reason()[0]

    def decide(self) -> dict[str, Any]:
        """Decide on the spacing and whether activations are computed twice; the class has decided on the rest."""
        spacing, reason = self._spacing_and_reason()
        checkpointing, memory = self._checkpointing_and_reason()
        spacings, shapes = (self.dataset_fingerprint[key] for key in ("spacings", "shapes_after_crop"))
        forward, backward = self.determine_transpose()
        return {
            "original_median_spacing_after_transp": np.median(spacings, axis=0).tolist(),
            "original_median_shape_after_transp": [round(side) for side in np.median(shapes, axis=0)],
            "transpose_forward": forward,
            "transpose_backward": backward,
            "configurations": {"3d_fullres": self._configuration(spacing, spacings, shapes, checkpointing)},
            "spacing_reason": reason,
            "memory_reason": memory,
        }

    def _spacing_and_reason(self) -> tuple[np.ndarray, str]:
        if given := self.given_spacing():
            return given
        spacing, reason = isotropic_spacing(
            self.dataset_fingerprint["shapes_after_crop"],
            self.dataset_fingerprint["spacings"],
            self.patch_size,
            self.coarsest_spacing,
        )
        return np.full(3, spacing), reason

    def _checkpointing_and_reason(self) -> tuple[bool, str]:
        modalities, classes = len(self.description.modalities), len(self.description.labels)
        patches = 2 * self.batch_size  # labelled and unlabelled
        logits = 16e-9 * classes * self.patch_size**3  # in float32, with their softmax and the gradients of both
        needed = modalities * (self.gb_of_weights + patches * (self.gb_per_patch + logits))
        about = f"training {modalities} modalities is estimated to take {needed:.1f} GB of GPU memory"
        if needed <= self.gpu_memory_target:
            return False, f"{about}, within the target of {self.gpu_memory_target:g} GB."
        return True, (
            f"{about}, beyond the target of {self.gpu_memory_target:g} GB: activations are computed twice instead "
            "of kept (-gpu_memory_target sets the target)."
        )

    def _configuration(self, spacing: np.ndarray, spacings: list, shapes: list, checkpointing: bool) -> dict:
        resampled = [compute_new_shape(shape, old, spacing) for shape, old in zip(shapes, spacings, strict=True)]
        median_shape = np.median(resampled, axis=0)
        schemes, use_mask = self.determine_normalization_scheme_and_whether_mask_is_used_for_norm()
        data, data_kwargs, seg, seg_kwargs = self.determine_resampling()
        probabilities, probabilities_kwargs = self.determine_segmentation_softmax_export_fn()
        patch_size = [self.patch_size] * 3
        return {
            "data_identifier": self.generate_data_identifier("3d_fullres"),
            "preprocessor_name": self.preprocessor_name,
            "batch_size": self.batch_size,
            "patch_size": patch_size,
            "median_image_size_in_voxels": median_shape.tolist(),
            "spacing": spacing.tolist(),
            "normalization_schemes": schemes,
            "use_mask_for_norm": use_mask,
            "resampling_fn_data": data.__name__,
            "resampling_fn_seg": seg.__name__,
            "resampling_fn_data_kwargs": data_kwargs,
            "resampling_fn_seg_kwargs": seg_kwargs,
            "resampling_fn_probabilities": probabilities.__name__,
            "resampling_fn_probabilities_kwargs": probabilities_kwargs,
            "batch_dice": False,  # as nnU-Net plans where there is one resolution
            "learning_rate": self.learning_rate,
            "architecture": self.architecture(
                patch_size=list(patch_size),
                encoder=self.encoder,
                encoder_kwargs=deepcopy(self.encoder_kwargs),
                decoder_channels=list(self.decoder_channels),
                checkpointing=checkpointing,
            ),
        }
