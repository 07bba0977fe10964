"""Reading checkpoint files that may come from anywhere."""

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_cmc.utils.pickles import IN_CHECKPOINTS


def load_checkpoint(path: str | Path, remedy: str = "download it again") -> dict[str, Any]:
    """Read the dict in a PyTorch checkpoint, on the CPU; ``remedy`` is what to do about one that is truncated.

    Only tensors, plain values and what :data:`IN_CHECKPOINTS` lists are read, and nothing is ever executed.
    FileNotFoundError: there is no such file. ValueError: it is truncated, or holds anything else.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no checkpoint file {path}.")
    try:
        with torch.serialization.safe_globals(IN_CHECKPOINTS):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch.load raises half a dozen types on broken files
        foreign = re.search(r"GLOBAL (\S+)", str(error))
        if isinstance(error, pickle.UnpicklingError) and foreign:
            raise ValueError(
                f"{path} holds a Python object ({foreign[1]}) beside tensors and plain values, and such objects are "
                f"never loaded; save its state dict alone and use that file."
            ) from error
        raise ValueError(
            f"{path} cannot be read as a PyTorch checkpoint: it is something else or truncated; {remedy}."
        ) from error
    if not isinstance(checkpoint, dict):
        raise ValueError(
            f"{path} holds a {type(checkpoint).__name__} where a checkpoint is a dict; use the file as released."
        )
    return checkpoint


def require_structure(
    expected: Mapping[str, Tensor], state: Mapping[str, Tensor], path: str | Path, what: str, remedy: str
) -> None:
    """Raise a ValueError unless ``state`` from ``path`` has just the tensors of ``expected``, in their shapes."""
    shapes = {key: getattr(value, "shape", None) for key, value in state.items()}
    differences = {
        "missing": expected.keys() - state.keys(),
        "unknown": state.keys() - expected.keys(),
        "of another shape": {k for k in expected.keys() & state.keys() if shapes[k] != expected[k].shape},
    }
    for difference, keys in differences.items():
        if keys:
            example = min(map(str, keys))
            raise ValueError(
                f"{path} holds no {what}: {len(keys)} of its tensors are {difference} (such as {example}); {remedy}."
            )
