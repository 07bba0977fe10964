"""What CMCTrainer refuses before anything is written."""

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager


def require_supported(plans: dict, configuration: str, dataset_json: dict, trainer: str) -> None:
    """Raise a ValueError if these plans or labels are not for this trainer."""
    chosen = plans["configurations"].get(configuration)
    if chosen is None:
        raise ValueError(
            f"The plans {plans['plans_name']} have no configuration {configuration}, only "
            f"{', '.join(plans['configurations'])}."
        )
    network = chosen.get("architecture", {}).get("network_class_name", "")
    if not network.startswith("nnunet_cmc."):
        raise ValueError(
            f"{trainer} cannot train the plans {plans['plans_name']} (their network is {network}): plan with "
            "-pl CMCPlanner and train with -p CMCPlans."
        )
    labels = PlansManager(plans).get_label_manager(dataset_json)
    if labels.has_regions or labels.has_ignore_label:
        kind = "region-based labels" if labels.has_regions else "an ignore label"
        raise ValueError(f"{trainer} does not support {kind}, which dataset.json has: use one integer per class.")
