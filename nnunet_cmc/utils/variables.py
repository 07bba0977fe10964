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


def expanded(folder: str) -> str:
    """``folder`` as a shell would have written it: with the home folder and the variables that it names."""
    return os.path.expanduser(os.path.expandvars(folder))
