"""Semi-supervised multimodal segmentation as an extension of nnU-Net v2."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nnunet_cmc.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor"]


def __getattr__(name: str) -> Any:
    if name == "Predictor":  # this package is imported at every start of Python, torch must not be
        from nnunet_cmc.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
