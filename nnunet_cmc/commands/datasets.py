"""The folders of the dataset that ``-d`` means."""

from pathlib import Path


def raw_dataset(id_or_name: str) -> Path:
    """Return the dataset's folder in nnUNet_raw by its ID or name. ValueError if there is not exactly one."""
    folder = _folder("nnUNet_raw", id_or_name)
    if not (folder / "dataset.json").is_file():
        raise ValueError(f"There is no {folder / 'dataset.json'}: convert the dataset first.")
    return folder


def preprocessed_dataset(id_or_name: str) -> Path:
    """Return its folder in nnUNet_preprocessed, which need not exist. ValueError if there is not exactly one."""
    return _folder("nnUNet_preprocessed", id_or_name)


def _folder(variable: str, id_or_name: str) -> Path:
    from nnunetv2 import paths
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    from nnunet_cmc.utils.variables import require_set

    require_set(root := getattr(paths, variable))
    try:
        return Path(root, str(maybe_convert_to_dataset_name(id_or_name)))
    except (ValueError, RuntimeError) as error:  # nnU-Net's own text spans several lines
        raise ValueError(
            f"There is not exactly one dataset {id_or_name} in {root}: give the number or whole name of a folder "
            "DatasetNNN_NAME in it."
        ) from error
