"""An auxiliary decoder, which predicts from each modality's own maps while a network trains."""

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.encoded import Encoded
from nnunet_cmc.networks.execution import Execution
from nnunet_cmc.networks.rows import grid


class AloneDecoder(nn.Module):
    """Decode each present modality by itself, all of them with the same weights; see ``CMCNet.auxiliary``.

    Args:
        decoder: maps of all resolutions -> logits, finest first.
        execution: how it is computed.
    """

    def __init__(self, decoder: nn.Module, execution: Execution):
        super().__init__()
        self.decoder, self.execution = decoder, execution

    def forward(self, x: Tensor, fusion: Tensor, encoded: Encoded, logits: Tensor, present: Tensor) -> tuple:
        """Compute logits ``(B, M, K, D, H, W)``, zero where a modality is absent; nothing in validation."""
        if not self.training:
            return ()
        places = sorted(encoded.row)
        maps = [torch.stack(level) for level in zip(*(encoded.of(b, m) for b, m in places), strict=True)]
        alone = self.execution.run(self.decoder, maps)[0]
        return (grid(dict(zip(places, alone, strict=True)), present),)
