"""Names in plans and in ``dataset.json`` that nnU-Net looks up in its modules and calls.

Its modules have imported such things as ``torch.os.system``, so only what nnU-Net's and our planners write is let
through.
"""

from collections.abc import Collection, Mapping
from typing import Any

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from torch import nn

from nnunet_cmc.data.format.plans_json import NETWORK
from nnunet_cmc.nnunet_hook.classes import CLASSES

NETWORKS = (NETWORK, *(f"{cls.__module__}.{cls.__name__}" for cls in (PlainConvUNet, ResidualEncoderUNet)))
LAYERS = (
    *(nn.Conv2d, nn.Conv3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.Dropout2d, nn.Dropout3d, nn.LeakyReLU, nn.ReLU),
)
IMPORTS = (None, *(f"{module}.{layer.__name__}" for layer in LAYERS for module in ("torch.nn", layer.__module__)))


def _ours(module: str) -> tuple[str, ...]:
    return tuple(name for name, found in CLASSES.items() if found.startswith(f"nnunet_cmc.{module}"))


READERS = (
    *("SimpleITKIO", "SimpleITKIOWithReorient", "NibabelIO", "NibabelIOWithReorient", "NaturalImage2DIO", "Tiff3DIO"),
    *_ours("data.reading"),
)
PLANNERS = (
    *("ExperimentPlanner", "ResEncUNetPlanner"),
    *("nnUNetPlannerResEncM", "nnUNetPlannerResEncL", "nnUNetPlannerResEncXL", "nnUNetPlannerResEncL_noResampling"),
    *("nnUNetPlannerResEncL_torchres", "nnUNetPlannerResEncL_torchres_sepz", "nnUNetPlanner_torchres"),
    *_ours("planners"),
)
NORMALIZATIONS = (
    *("ZScoreNormalization", "CTNormalization", "NoNormalization", "RescaleTo01Normalization", "RGBTo01Normalization"),
    *_ours("data.preprocessing.normalization"),
)
RESAMPLINGS = ("resample_data_or_seg_to_shape", "resample_torch_fornnunet", "no_resampling_hack")
RESAMPLING_ARGUMENTS = (
    *("is_seg", "order", "order_z", "force_separate_z"),
    *("memefficient_seg_resampling", "separate_z_anisotropy_threshold"),
)
OF_DATASET = {"overwrite_image_reader_writer": (None, "None", *READERS)}
OF_PLANS = {"image_reader_writer": READERS, "label_manager": ("LabelManager",), "experiment_planner_used": PLANNERS}
OF_CONFIGURATION = {
    "preprocessor_name": ("DefaultPreprocessor", *_ours("data.preprocessing.preprocessor")),
    "normalization_schemes": NORMALIZATIONS,
    "use_mask_for_norm": (True, False),
    **{f"resampling_fn_{kind}": RESAMPLINGS for kind in ("data", "seg", "probabilities")},
    **{f"resampling_fn_{kind}_kwargs": RESAMPLING_ARGUMENTS for kind in ("data", "seg", "probabilities")},
}


def check_plans_names(plans: Mapping[str, Any]) -> None:
    """Raise a ValueError if nnU-Net would look up and call something in sound ``plans`` that no planner writes."""
    _check(plans, OF_PLANS, "the plans have")
    for name, configuration in plans["configurations"].items():
        _check(configuration, OF_CONFIGURATION, f"its configuration {name} has")
        if (architecture := configuration.get("architecture")) is not None:
            _check_architecture(architecture, name)


def check_dataset_names(dataset_json: Any) -> None:
    """Raise a ValueError if nnU-Net would look up and call something else than a reader by ``dataset_json``."""
    if not isinstance(dataset_json, dict):
        raise ValueError("dataset.json must hold an object: export or copy it again")
    _check(dataset_json, OF_DATASET, "dataset.json has")


def _check(content: Mapping[str, Any], harmless: Mapping[str, Collection], who: str) -> None:
    """Check entries, each of which is a name, a list of names, or arguments by their names, with plain values."""
    for key, allowed in harmless.items():
        entry = content.get(key, [])
        values = list(entry.values()) if isinstance(entry, dict) else []
        names = list(entry) if isinstance(entry, list | dict) else [entry]
        for name in [*names, *(value for value in values if isinstance(value, list | dict))]:
            if name not in allowed:
                raise ValueError(
                    f"{who} {name!r} as {key}, which nnU-Net would look up and call, and which neither it nor "
                    "nnunet_cmc writes: do not load it."
                )


def _check_architecture(architecture: Any, name: str) -> None:
    try:
        network, kwargs = architecture["network_class_name"], architecture["arch_kwargs"]
        imports = [kwargs[key] for key in architecture["_kw_requires_import"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"its configuration {name} has an architecture that describes no network") from error
    if network not in NETWORKS or not all(argument in IMPORTS for argument in imports):
        raise ValueError(f"its configuration {name} would import {', '.join(map(str, [network, *imports]))}")
