"""nnU-Net's variables ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``, which name its folders."""

import os
from typing import Any


def require_set(*variables: Any) -> None:
    """Raise a ValueError if one of the ``variables`` of ``nnunetv2.paths`` is not set, or needs a shell to expand it.

    nnU-Net takes a ~ or a $HOME for the name of a folder, as do we, since both must mean the same folder.
    """
    for variable in variables:
        name, folder = variable.env_var_name, variable.get()
        if not folder:
            raise ValueError(f"{name} is not set: set this variable to nnU-Net's folder of that name.")
        if (whole := expanded(folder)) != folder:
            raise ValueError(f"{name} is {folder}, which nnU-Net does not expand: export {name}={whole}.")
        if cannot_be_expanded(folder):
            raise ValueError(
                f"{name} is {folder}, which names a home folder or a variable that there is not: export {name} with "
                "the path of the folder."
            )


def expanded(folder: str) -> str:
    """``folder`` as a shell would have written it: with the home folder and the variables that it names."""
    return os.path.expanduser(os.path.expandvars(folder))


def cannot_be_expanded(folder: str) -> bool:
    """Tell whether ``folder`` names the home of a user, or a variable, that there is not, and is no folder so named."""
    return (folder.startswith("~") or "$" in folder) and expanded(folder) == folder and not os.path.isdir(folder)
