"""Checks of untrusted plans before nnU-Net writes the folders and imports the classes that they name."""

import os
from collections.abc import Callable
from math import inf
from typing import Any, NamedTuple

from nnunet_cmc.utils.files import is_plain_name, read_json

REMEDY = "plan again, with nnUNetv2_plan_experiment -pl CMCPlannerNNUNet"
NETWORK = "nnunet_cmc.networks.CMCNet"  # of all our planners; nnU-Net would import and call any other name

# of a patch: nnU-Net's GaussianBlurTransform reflects up to 3 voxels at its borders, and needs one more
FEWEST_SLICES = 4


class Kind(NamedTuple):  # of an entry of plans
    name: str
    fits: Callable[[Any], bool]


def _of_each_axis(kind: str, *types: type) -> Kind:
    def fits(value: Any) -> bool:
        return isinstance(value, list) and len(value) == 3 and all(type(n) in types and 0 < n < inf for n in value)

    return Kind(f"three {kind} above 0", fits)


TEXT = Kind("a text", lambda value: isinstance(value, str))
OBJECT = Kind("an object", lambda value: isinstance(value, dict))
LIST = Kind("a list", lambda value: isinstance(value, list))
AXES = Kind("0, 1 and 2 in some order", lambda value: isinstance(value, list) and sorted(map(str, value)) == [*"012"])
# Entries read by preprocessing, and then by training and prediction; nnU-Net looks up functions and classes by name.
OF_PLANS = {
    "dataset_name": TEXT,
    "plans_name": TEXT,
    "image_reader_writer": TEXT,
    "label_manager": TEXT,
    "transpose_forward": AXES,
    "transpose_backward": AXES,
    "foreground_intensity_properties_per_channel": OBJECT,
}
OF_CONFIGURATION = {
    "data_identifier": TEXT,
    "preprocessor_name": TEXT,
    "patch_size": _of_each_axis("whole numbers", int),
    "spacing": _of_each_axis("numbers", int, float),
    "normalization_schemes": LIST,
    "use_mask_for_norm": LIST,
    "resampling_fn_data": TEXT,
    "resampling_fn_data_kwargs": OBJECT,
    "resampling_fn_seg": TEXT,
    "resampling_fn_seg_kwargs": OBJECT,
}
OF_TRAINING = {
    "batch_size": Kind("a whole number above 0", lambda value: type(value) is int and value > 0),
    "learning_rate": Kind("a number above 0", lambda value: type(value) in (int, float) and 0 < value < inf),
    "batch_dice": Kind("true or false", lambda value: isinstance(value, bool)),
    "resampling_fn_probabilities": TEXT,
    "resampling_fn_probabilities_kwargs": OBJECT,
}


def read_plans(file: str | os.PathLike) -> dict[str, Any]:
    """Read and check a plans file. ValueError: see :func:`check_plans`; or it is no JSON."""
    plans = read_json(file, REMEDY)
    check_plans(plans, f"The plans {file}")
    return plans


def check_plans(plans: Any, which: str = "The plans") -> None:
    """Raise a ValueError, beginning with ``which``, unless ``plans`` have configurations and plain folder names."""
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict) or not all(isinstance(c, dict) for c in configurations.values()):
        raise ValueError(f"{which} have no configurations: {REMEDY}.")
    names = {key: plans[key] for key in ("dataset_name", "plans_name") if key in plans}
    for name, content in configurations.items():
        names[name] = name
        if "data_identifier" in content:
            names[f"data_identifier of {name}"] = content["data_identifier"]
    for key, name in names.items():
        if not is_plain_name(name):
            raise ValueError(f"{which} have {name!r} as {key}, which is not a folder name: {REMEDY}.")


def planned_configuration(plans: Any, name: str) -> dict[str, Any]:
    """Return the configuration ``name`` with inherited entries. ValueError: preprocessing cannot use it."""
    chosen = _configuration(plans, name)
    _require({**plans, **chosen}, {**OF_PLANS, **OF_CONFIGURATION}, plans)
    return chosen


def require_ours(plans: Any, name: str, who: str) -> dict[str, Any]:
    """Return the configuration ``name`` with inherited entries. ValueError: ``who`` cannot train with it."""
    chosen, title = _configuration(plans, name), plans.get("plans_name", "")
    architecture = chosen["architecture"] if isinstance(chosen.get("architecture"), dict) else {}
    network = architecture.get("network_class_name", "")
    if network != NETWORK:
        raise ValueError(
            f"{who} cannot train the plans {title} (their network is {network}): plan with "
            "-pl CMCPlannerNNUNet and train with -p CMCNNUNetPlans."
        )
    kwargs = architecture.get("arch_kwargs")
    # nnU-Net would import what is listed there
    if architecture.get("_kw_requires_import") or not isinstance(kwargs, dict):
        raise ValueError(f"The plans {title} do not describe the network {network} as our planners do: {REMEDY}.")
    _require({**plans, **chosen}, {**OF_PLANS, **OF_CONFIGURATION, **OF_TRAINING}, plans)
    if kwargs.get("patch_size") != chosen["patch_size"]:
        raise ValueError(
            f"The plans {title} have the patch {chosen['patch_size']}, but a network for {kwargs.get('patch_size')}: "
            "write the same patch_size in both places."
        )
    return chosen


def _configuration(plans: Any, name: str) -> dict[str, Any]:
    check_plans(plans)
    title, configurations = plans.get("plans_name", ""), plans["configurations"]
    if name not in configurations:
        raise ValueError(
            f"The plans {title} have no configuration {name}, only {', '.join(configurations)}: choose one of these."
        )
    lineage: list[dict] = []
    parent: Any = name
    while parent is not None:
        if not isinstance(parent, str) or parent not in configurations or configurations[parent] in lineage:
            raise ValueError(
                f"The plans {title} have a configuration that inherits from {parent!r}, which does not exist or "
                f"inherits from it: {REMEDY}."
            )
        lineage.append(configurations[parent])
        parent = configurations[parent].get("inherits_from")
    return {key: value for configuration in reversed(lineage) for key, value in configuration.items()}


def _require(entries: dict, kinds: dict[str, Kind], plans: dict) -> None:
    title = plans.get("plans_name", "")
    for key, kind in kinds.items():
        if key not in entries:
            raise ValueError(f"The plans {title} lack {key}: {REMEDY}.")
        if not kind.fits(entries[key]):
            raise ValueError(f"The plans {title} have {entries[key]!r} as {key}, which must be {kind.name}: {REMEDY}.")
