"""The raw dataset that ``-d`` means."""

from pathlib import Path


def raw_dataset(id_or_name: str) -> Path:
    """Folder in nnUNet_raw of the dataset with this ID or name; a ValueError if there is not exactly one."""
    from nnunetv2.paths import nnUNet_raw
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    root = nnUNet_raw.get()
    if root is None:
        raise ValueError("nnUNet_raw is not set: set this variable to the folder of nnU-Net's raw datasets.")
    try:
        folder = Path(root, maybe_convert_to_dataset_name(id_or_name))
    except RuntimeError as error:
        raise ValueError(f"There is not exactly one dataset with the ID {id_or_name} in {root}.") from error
    if not (folder / "dataset.json").is_file():
        raise ValueError(f"There is no {folder / 'dataset.json'}: convert the dataset first.")
    return folder
