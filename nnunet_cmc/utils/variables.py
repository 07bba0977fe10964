"""nnU-Net's variables ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``, which name its folders."""

import os
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


def expanded(folder: str) -> str:
    """Expand ~ and variables as a shell does."""
    return os.path.expanduser(os.path.expandvars(folder))


def cannot_be_expanded(folder: str) -> bool:
    """Tell whether ``folder`` names a home folder or a variable that does not exist, and is not itself a folder."""
    return (folder.startswith("~") or "$" in folder) and expanded(folder) == folder and not os.path.isdir(folder)
