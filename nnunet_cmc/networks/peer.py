"""A second network for cross pseudo supervision, used in training only."""

from typing import cast

from torch import Tensor, nn

from nnunet_cmc.networks.cmcnet import CMCNet, CMCOutput
from nnunet_cmc.networks.encoded import Encoded

PEER = "peer"  # in CMCNet.auxiliary


class Peer(nn.Module):
    """The second network, an auxiliary module of the first; its weights are trained and saved, but not used to predict.

    Args:
        network: the second one.
    """

    def __init__(self, network: CMCNet):
        super().__init__()
        self.network = network

    def forward(self, x: Tensor, fusion: Tensor, encoded: Encoded, logits: Tensor, present: Tensor) -> tuple:
        """Predict the rows of the first network: logits ``(B, M, K, D, H, W)``, finest resolution first.

        Outside of training mode, as in validation, nothing is computed.
        """
        if not self.training:
            return ()
        output = cast(CMCOutput, self.network(x, fusion))
        return (output.logits, *output.deep)


def of_peer(output: CMCOutput) -> CMCOutput:
    """Return the ``output`` of training with the logits of the peer in place of the first network's."""
    logits, *deep = output.auxiliary[PEER]
    return output._replace(logits=logits, deep=tuple(deep))
