"""nnU-Net's variables ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``, which name its folders."""

import os
from pathlib import Path
from typing import Any


def require_set(*variables: Any) -> None:
    """Raise a ValueError if a variable of ``nnunetv2.paths`` is not set, or has a ~ or $, which nnU-Net keeps so."""
    for variable in variables:
        name, folder = variable.env_var_name, variable.get()
        if not folder:
            raise ValueError(f"{name} is not set: set this variable to nnU-Net's folder of that name.")
        if (whole := expanded(folder)) != folder:
            raise ValueError(f"{name} is {folder}, which nnU-Net does not expand: export {name}={whole}.")
        if cannot_be_expanded(folder):
            raise ValueError(
                f"{name} is {folder}, which names a home folder or a variable that does not exist: export {name} with "
                "the path of the folder."
            )


def dataset_folder(variable: Any, id_or_name: int | str) -> Path:
    """Return the folder of a dataset in that of a variable of ``nnunetv2.paths``; it need not exist.

    ValueError: the variable is not set, or no dataset, or more than one, has this ID or name.
    """
    from nnunetv2.utilities.dataset_name_id_conversion import maybe_convert_to_dataset_name

    require_set(variable)
    try:
        return Path(variable, str(maybe_convert_to_dataset_name(id_or_name)))
    except (ValueError, RuntimeError) as error:  # nnU-Net's own text spans several lines
        if "More than one" in str(error):
            raise ValueError(
                f"There are several datasets {id_or_name} in {variable} and nnU-Net's other folders: give the whole "
                "name, DatasetNNN_NAME, or rename all but one."
            ) from error
        raise ValueError(
            f"There is no dataset {id_or_name} in {variable}: give the number or whole name of a folder "
            "DatasetNNN_NAME in it."
        ) from error


def expanded(folder: str) -> str:
    """Expand ~ and variables as a shell does."""
    return os.path.expanduser(os.path.expandvars(folder))


def cannot_be_expanded(folder: str) -> bool:
    """Tell whether ``folder`` names a home folder or a variable that does not exist, and is not itself a folder."""
    return (folder.startswith("~") or "$" in folder) and expanded(folder) == folder and not os.path.isdir(folder)
