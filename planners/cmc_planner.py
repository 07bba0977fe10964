"""Planner for CMC: a fixed cube, a self-configured spacing, one 3-D configuration."""

import shutil
from copy import deepcopy
from os.path import isfile, join
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.preprocessing.resampling.default_resampling import compute_new_shape
from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunet_cmc.data.format.plans_json import NETWORK, read_plans
from nnunet_cmc.data.format.raw_dataset import check_dataset, raw_description
from nnunet_cmc.data.format.splits import hidden_cases, splits_in_force
from nnunet_cmc.data.preprocessing.normalization import describe_normalization
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.data.reading.reader_writer import CMCReaderWriter
from nnunet_cmc.planners.intensities import intensity_statistics
from nnunet_cmc.planners.spacing import isotropic_spacing
from nnunet_cmc.utils.files import atomic_write, read_json, write_json

GPU_MEMORY_GB = 24
STOCK_PREPROCESSOR = "DefaultPreprocessor"  # what nnUNetv2_plan_and_preprocess passes when nobody asked for anything


class CMCPlanner(ExperimentPlanner):
    """Plan with the SAM-Med3D ViT-B encoder. Subclasses differ in the attributes of the class.

    Args:
        dataset_name_or_id: of a dataset in raw format that has a ``dataset_fingerprint.json``.
        gpu_memory_target_in_gb: patch and batch are fixed; a training that is estimated to need more than this computes
            its activations twice instead of keeping them.
        preprocessor_name: nothing but nnU-Net's default, which stands for :class:`CMCPreprocessor`.
        plans_name: by default the class's own.
        overwrite_target_spacing: three floats, mm along D, H, W of canonical axes, instead of the planned spacing.
        suppress_transpose: has no effect, axes are never transposed.

    Raises:
        ValueError: another preprocessor, a spacing that is not three positive numbers, no such dataset, an unsound
            ``dataset.json``, or labels that are regions or to be ignored.
    """

    plans_name = "CMCPlans"
    patch_size = 96  # voxels along each axis
    batch_size = 4
    coarsest_spacing: float | None = 1.5  # mm: what the encoder was trained at
    learning_rate = 3e-4  # from scratch
    # GB of each modality: weights, gradients and AdamW's moments; and what a patch leaves for the backward pass in
    # mixed precision (benchmarks/train_step.py counts both)
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
    decoder_channels = (16, 32, 64, 128)  # width at stride 2 ** i

    def __init__(
        self,
        dataset_name_or_id,
        gpu_memory_target_in_gb=GPU_MEMORY_GB,
        preprocessor_name=STOCK_PREPROCESSOR,
        plans_name=None,
        overwrite_target_spacing=None,
        suppress_transpose=False,
    ):
        ours = CMCPreprocessor.__name__
        if preprocessor_name not in (STOCK_PREPROCESSOR, ours):
            raise ValueError(
                f"{type(self).__name__} plans the preprocessor {ours}, but -preprocessor_name asks for "
                f"{preprocessor_name}: leave -preprocessor_name away."
            )
        if overwrite_target_spacing is not None and (
            len(overwrite_target_spacing) != 3 or not all(float(s) > 0 for s in overwrite_target_spacing)
        ):
            raise ValueError(
                f"-overwrite_target_spacing takes three positive numbers (mm), not {list(overwrite_target_spacing)}."
            )
        self.description = raw_description(dataset_name_or_id)
        self.description.require_plain_labels(type(self).__name__)
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
        fingerprint = join(nnUNet_preprocessed, name, "dataset_fingerprint.json")
        read_json(fingerprint, f"run nnUNetv2_extract_fingerprint -d {dataset_name_or_id} --clean")
        splits_in_force(name)  # where files disagree, nnU-Net would stop without an explanation
        super().__init__(
            dataset_name_or_id,
            gpu_memory_target_in_gb,
            ours,
            plans_name or self.plans_name,
            overwrite_target_spacing,
            suppress_transpose,
        )

    def determine_reader_writer(self):
        """Choose canonical axes, so that left is left in every modality; predictions return to the input's grid."""
        return CMCReaderWriter

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

    def plan_experiment(self) -> dict:
        """Make the plans, write them and a copy of ``dataset.json`` to the preprocessed folder, and return them.

        Raises:
            ValueError: a case that cannot be read, or a modality without a labelled case.
        """
        check_dataset(self.raw_dataset_folder, self.description)
        folder = join(nnUNet_preprocessed, self.dataset_name)
        splits_file = splits_in_force(self.dataset_name)
        hidden = set() if splits_file is None else hidden_cases(splits_file)
        statistics = intensity_statistics(self.dataset, self.description, hidden)

        spacing, reason = self._spacing_and_reason()
        print(f"Target spacing: {reason}")
        checkpointing, memory = self._checkpointing_and_reason()
        print(f"GPU memory: {memory}")
        spacings, shapes = (self.dataset_fingerprint[key] for key in ("spacings", "shapes_after_crop"))
        forward, backward = self.determine_transpose()
        self.plans = {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_identifier,
            "original_median_spacing_after_transp": np.median(spacings, axis=0).tolist(),
            "original_median_shape_after_transp": [round(side) for side in np.median(shapes, axis=0)],
            "image_reader_writer": self.determine_reader_writer().__name__,
            "transpose_forward": forward,
            "transpose_backward": backward,
            "configurations": {"3d_fullres": self._configuration(spacing, spacings, shapes, checkpointing)},
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": statistics,
            "spacing_reason": reason,
            "memory_reason": memory,
        }
        with atomic_write(join(folder, "dataset.json")) as copy:
            shutil.copyfile(join(self.raw_dataset_folder, "dataset.json"), copy)
        schemes = self.plans["configurations"]["3d_fullres"]["normalization_schemes"]
        print(describe_normalization(self.description, schemes))
        self.save_plans(self.plans)
        return self.plans

    def save_plans(self, plans: dict) -> None:
        """Write the plans. Of an older file, only configurations that inherit from one of these plans are kept."""
        file = join(nnUNet_preprocessed, self.dataset_name, self.plans_identifier + ".json")
        planned = list(plans["configurations"])
        for name, configuration in self._older_configurations(file).items():
            if configuration.get("inherits_from") in planned and "previous_stage" not in configuration:
                plans["configurations"].setdefault(name, configuration)
            elif name not in planned:
                print(f"Removing configuration {name} from {file}: {type(self).__name__} does not plan it.")
        recursive_fix_for_json_export(plans)
        write_json(file, plans)
        print(f"Plans were saved to {file}")

    @staticmethod
    def _older_configurations(file: str) -> dict[str, dict]:
        try:
            return read_plans(file)["configurations"]
        except ValueError as error:
            if isfile(file):
                print(f"Writing {file} anew: {error}")
            return {}

    def _spacing_and_reason(self) -> tuple[np.ndarray, str]:
        if self.overwrite_target_spacing is not None:
            given = np.array(self.overwrite_target_spacing, dtype=float)
            return given, f"{' x '.join(f'{s:g}' for s in given)} mm, as -overwrite_target_spacing says."
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
        if needed <= self.UNet_vram_target_GB:
            return False, f"{about}, within the target of {self.UNet_vram_target_GB:g} GB."
        return True, (
            f"{about}, beyond the target of {self.UNet_vram_target_GB:g} GB: activations are computed twice instead "
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
            # over the batch, since a patch of the few labelled scans often lacks a class, and Dice of an absent class
            # only teaches to be silent about it
            "batch_dice": True,
            "learning_rate": self.learning_rate,
            "architecture": {
                "network_class_name": NETWORK,
                "_kw_requires_import": [],
                "arch_kwargs": {
                    "patch_size": list(patch_size),
                    "encoder": self.encoder,
                    "encoder_kwargs": deepcopy(self.encoder_kwargs),
                    "decoder_channels": list(self.decoder_channels),
                    "checkpointing": checkpointing,
                },
            },
        }
