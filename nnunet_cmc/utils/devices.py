"""The device that torch computes on."""

import torch


def require_device(device: torch.device) -> None:
    """Raise ValueError if torch has no such device here."""
    if (device.type == "cuda" and not torch.cuda.is_available()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    ):
        raise ValueError(
            f"torch {torch.__version__} finds no GPU here ({device.type}): compute on the CPU, with -device cpu (in "
            'Python device="cpu"), or see what `nnunet_cmc doctor` says about the GPU.'
        )
