"""What CMCTrainer refuses before anything is written."""

from nnunetv2.paths import nnUNet_preprocessed, nnUNet_results

from nnunet_cmc.data.dataset_json import check_dataset_json, require_plain_labels
from nnunet_cmc.data.plans_json import require_ours


def require_supported(plans: dict, configuration: str, dataset_json: dict, trainer: str) -> None:
    """Raise a ValueError if these plans or labels are not for this trainer."""
    require_ours(plans, configuration, trainer)
    check_dataset_json(dataset_json, "dataset.json")
    require_plain_labels(dataset_json, trainer)


def require_folders() -> None:
    """Raise a ValueError if a training has nowhere to read from or to write to."""
    for path in (nnUNet_preprocessed, nnUNet_results):
        if not path.is_set():
            raise ValueError(f"{path.env_var_name} is not set: set this variable to nnU-Net's folder of that name.")
