"""Plans of ours, for tests that do not plan."""

from copy import deepcopy
from typing import Any

NETWORK = {
    "patch_size": [16, 16, 16],
    "encoder": "unet",
    "encoder_kwargs": {"features_per_stage": [4, 8], "blocks_per_stage": [1, 1]},
}
RESAMPLING = {"order": 3, "order_z": 0, "force_separate_z": None}


def make_plans(network: dict = NETWORK, plans_name: str = "CMCPlans", **configuration: Any) -> dict:
    """Plans with all that ours have; ``configuration`` replaces entries of ``3d_fullres``."""
    resample = "resample_data_or_seg_to_shape"
    plans = {
        "dataset_name": "Dataset001_Test",
        "plans_name": plans_name,
        "image_reader_writer": "SimpleITKIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {}, "1": {}},
        "configurations": {
            "3d_fullres": {
                "data_identifier": f"{plans_name}_3d_fullres",
                "preprocessor_name": "CMCPreprocessor",
                "batch_size": 2,
                "patch_size": [16, 16, 16],
                "spacing": [1.0, 1.0, 1.0],
                "normalization_schemes": ["ZScoreNormalization"] * 2,
                "use_mask_for_norm": [False, False],
                "resampling_fn_data": resample,
                "resampling_fn_data_kwargs": {"is_seg": False, **RESAMPLING},
                "resampling_fn_seg": resample,
                "resampling_fn_seg_kwargs": {"is_seg": True, **RESAMPLING, "order": 1},
                "resampling_fn_probabilities": resample,
                "resampling_fn_probabilities_kwargs": {"is_seg": False, **RESAMPLING, "order": 1},
                "batch_dice": False,
                "learning_rate": 1e-2,
                "architecture": {
                    "network_class_name": "nnunet_cmc.networks.CMCNet",
                    "_kw_requires_import": [],
                    "arch_kwargs": network,
                },
                **configuration,
            }
        },
    }
    return deepcopy(plans)
