"""Building a trainer's network without the trainer."""

from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.networks import CMCNet
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer


def build_network(
    trainer: type[CMCTrainer], plans: dict, configuration: str, description: DatasetDescription
) -> CMCNet:
    """Build ``trainer``'s network for these plans. ValueError if they describe no network of this package."""
    manager = PlansManager(plans)
    channels, heads = len(description.modalities), len(description.label_values())
    try:
        return trainer.build_network_architecture(
            manager, manager.get_configuration(configuration), channels, heads, False
        )
    except Exception as error:  # anything may stand in a file, and may be wrong in any way
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ValueError(
            f"The plans {plans.get('plans_name', '')} do not describe a network that this nnunet_cmc builds "
            f"({reason}): plan again, or install the nnunet_cmc that made them."
        ) from error
