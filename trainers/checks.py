"""What CMCTrainer refuses before anything is written."""

from nnunet_cmc.data.dataset_json import check_dataset_json, require_plain_labels
from nnunet_cmc.data.plans_json import require_ours


def require_supported(plans: dict, configuration: str, dataset_json: dict, trainer: str) -> None:
    """Raise a ValueError if these plans or labels are not for this trainer."""
    require_ours(plans, configuration, trainer)
    check_dataset_json(dataset_json, "dataset.json")
    require_plain_labels(dataset_json, trainer)
