"""Plans as a file from anywhere: checked before nnU-Net deletes and writes folders, and imports classes, they name."""

import os
from typing import Any

from nnunet_cmc.data.files import is_plain_name, read_json

REMEDY = "plan again, with nnUNetv2_plan_experiment -pl CMCPlanner"
NETWORK = "nnunet_cmc.networks.CMCNet"  # all that our planners write; of any other name, nnU-Net calls what it leads to


def read_plans(file: str | os.PathLike) -> dict[str, Any]:
    """The checked content of a plans file. ValueError: see :func:`check_plans`; or it is no JSON."""
    plans = read_json(file, REMEDY)
    check_plans(plans, f"The plans {file}")
    return plans


def check_plans(plans: Any, which: str = "The plans") -> None:
    """ValueError, beginning with ``which``, unless ``plans`` have configurations, and names that lead nowhere else."""
    configurations = plans.get("configurations") if isinstance(plans, dict) else None
    if not isinstance(configurations, dict) or not all(isinstance(c, dict) for c in configurations.values()):
        raise ValueError(f"{which} have no configurations: {REMEDY}.")
    names = {key: plans[key] for key in ("dataset_name", "plans_name") if key in plans}
    names |= {name: name for name in configurations}
    names |= {
        f"data_identifier of {n}": c["data_identifier"] for n, c in configurations.items() if "data_identifier" in c
    }
    for key, name in names.items():
        if not is_plain_name(name):
            raise ValueError(f"{which} have {name!r} as {key}, which is no name of a folder: {REMEDY}.")


def require_ours(plans: dict, name: str, who: str) -> dict[str, Any]:
    """The configuration ``name`` of ``plans``, with what it inherits.

    Raises:
        ValueError: the plans are malformed, have no such configuration, or their network is none that ``who`` can use.
    """
    check_plans(plans)
    title = plans.get("plans_name", "")
    if name not in plans["configurations"]:
        raise ValueError(f"The plans {title} have no configuration {name}, only {', '.join(plans['configurations'])}.")
    chosen = _with_inherited(plans["configurations"], name, title)
    architecture = chosen.get("architecture")
    architecture = architecture if isinstance(architecture, dict) else {}
    network = architecture.get("network_class_name", "")
    if network != NETWORK:
        raise ValueError(
            f"{who} cannot train the plans {title} (their network is {network}): plan with "
            "-pl CMCPlanner and train with -p CMCPlans."
        )
    # nnU-Net would import what is listed there
    if architecture.get("_kw_requires_import") or not isinstance(architecture.get("arch_kwargs"), dict):
        raise ValueError(f"The plans {title} do not describe the network {network} as our planners do: {REMEDY}.")
    return chosen


def _with_inherited(configurations: dict[str, dict], name: Any, title: str) -> dict[str, Any]:
    lineage: list[dict] = []
    while name is not None:
        if not isinstance(name, str) or name not in configurations or configurations[name] in lineage:
            raise ValueError(f"The plans {title} have a configuration that inherits from {name!r}, in vain: {REMEDY}.")
        lineage.append(configurations[name])
        name = configurations[name].get("inherits_from")
    return {key: value for configuration in reversed(lineage) for key, value in configuration.items()}
