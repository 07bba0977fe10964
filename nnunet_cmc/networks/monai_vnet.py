"""V-Net (Milletari et al., 3DV 2016) from MONAI's modules as an encoder of one modality; its decoder: decoder.py.

Modules are named as in ``monai.networks.nets.VNet``, so that its weights fit.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

from torch import Tensor, nn

ACTIVATION = ("elu", {"inplace": True})  # MONAI's default
REMEDY = 'pip install "nnunet_cmc[vnet]"'


class VNetEncoder(nn.Module):
    """The encoder: ``x (B, 1, D, H, W)`` -> five maps, shallow to deep, at strides 1, 2, 4, 8, 16.

    Batch norm uses the batch's scans of a modality in training, and running statistics in prediction. With
    checkpointing, these are updated twice per batch.

    Args:
        width: channels of the first map, doubled at each further one; V-Net has 16.
        dropout: probability of dropping a channel of the two deepest maps, and of the decoder's skips, in training.

    Raises:
        ValueError: MONAI is not installed.
    """

    own = ("in_tr",)

    def __init__(self, width: int = 16, dropout: float = 0.5):
        super().__init__()
        blocks = monai_blocks()
        self.dropout = dropout
        self.channels = [width * 2**i for i in range(5)]
        self.strides = [(2**i,) * 3 for i in range(5)]
        self.in_tr = blocks.InputTransition(3, 1, width, ACTIVATION)
        self.down_tr32 = blocks.DownTransition(3, width, 1, ACTIVATION)
        self.down_tr64 = blocks.DownTransition(3, 2 * width, 2, ACTIVATION)
        self.down_tr128 = blocks.DownTransition(3, 4 * width, 3, ACTIVATION, dropout_prob=dropout)
        self.down_tr256 = blocks.DownTransition(3, 8 * width, 2, ACTIVATION, dropout_prob=dropout)

    def stem(self, x: Tensor) -> Tensor:
        """Compute the first map."""
        return self.in_tr(x)

    def forward(self, x: Tensor, from_stem: bool = False) -> list[Tensor]:
        maps = [x if from_stem else self.stem(x)]
        for stage in (self.down_tr32, self.down_tr64, self.down_tr128, self.down_tr256):
            maps.append(stage(maps[-1]))
        return maps


def monai_blocks() -> ModuleType:
    """Import MONAI's V-Net without torchvision. ValueError if MONAI is not installed."""
    try:
        with _not_imported("torchvision"):  # MONAI would, for networks of its own
            from monai.networks.nets import vnet
    except ImportError as error:
        raise ValueError(f"The V-Net of these plans is MONAI's, which is not installed: {REMEDY}.") from error
    return vnet


@contextmanager
def _not_imported(name: str) -> Iterator[None]:
    """Make a module appear as not installed, unless it was imported before."""
    if name in sys.modules:
        yield
        return
    sys.modules[name] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        del sys.modules[name]
