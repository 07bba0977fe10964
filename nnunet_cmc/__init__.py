"""Semi-supervised multimodal segmentation as an extension of nnU-Net v2."""

TYPE_CHECKING = False  # as type checkers see it, typing's; importing that takes longer than all of this package's hook
if TYPE_CHECKING:
    from typing import Any

    from nnunet_cmc.predictor import Predictor

__version__ = "0.1.0"
__all__ = ["Predictor"]


def __getattr__(name: str) -> "Any":
    if name == "Predictor":  # this package is imported at every start of Python, torch must not be
        from nnunet_cmc.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
