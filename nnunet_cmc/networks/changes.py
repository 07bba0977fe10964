"""Changes of the plans' network: values that a recipe lists, called with the network in the recipe's order.

Training and prediction build the network by the same recipe, so its weights fit.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

from torch import nn

from nnunet_cmc.networks.adapter import freeze_all_but_adapters
from nnunet_cmc.networks.alone import AloneDecoder
from nnunet_cmc.networks.cmcnet import CMCNet
from nnunet_cmc.networks.combination import CombinedInTraining, Discounting
from nnunet_cmc.networks.decoder import Predicting
from nnunet_cmc.networks.evidence import EvidentialHead
from nnunet_cmc.networks.mia import MeanFusion
from nnunet_cmc.networks.mmformer import ConcatenatedSkips, MMFormerFusion
from nnunet_cmc.networks.peer import PEER, Peer
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.skip_fusion import SkipFusion


@dataclass(frozen=True)
class SuperviseDeep:
    """Let decoders predict at coarser resolutions, too, during training."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        for decoder in network.decoders:
            cast(Predicting, decoder).supervise_deep()


@dataclass(frozen=True)
class SeparateModalities:
    """Give each modality its own encoder and decoder, as in the paper: see :meth:`CMCNet.separate`."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        network.separate()


@dataclass(frozen=True)
class PredictAlone:
    """Fuse nothing: predict from each modality by itself, and combine these predictions."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        network.predict_alone()


@dataclass(frozen=True)
class OwnDecoderNorms:
    """Give the shared decoder its own norms for each modality, for predictions from single modalities."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: its modalities have decoders of their own."""
        if len(network.decoders) > 1:
            raise ValueError("The change is of a shared decoder, and this network has one of each modality already.")
        (decoder,) = network.decoders
        modules = [module for module in decoder.modules() if not isinstance(module, nn.InstanceNorm3d | nn.BatchNorm3d)]
        shared = {id(tensor): tensor for module in modules for tensor in module.parameters(recurse=False)}
        copies = (deepcopy(decoder, dict(shared)) for _ in range(network.num_modalities - 1))
        network.decoders = nn.ModuleList([decoder, *copies])


@dataclass(frozen=True)
class Evidential:
    """Predict the plausibility of each class from prototypes, and combine modalities by Dempster's rule.

    Each decoder gets an :class:`EvidentialHead`; the predictions of single modalities are combined by
    :class:`Discounting`, in training also as ``output.auxiliary["combined"]``. Predictions at coarser resolutions stay
    plain logits, which are not combined.

    Args:
        prototypes: number I of each head.
    """

    prototypes: int = 20

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: it fuses modalities before it predicts."""
        if network.fuses:
            raise ValueError(
                "Dempster's rule combines the evidence of single modalities, and this network fuses them: put "
                "PredictAlone before Evidential."
            )
        for decoder in network.decoders:
            cast(Predicting, decoder).add_head(EvidentialHead(network.num_classes, self.prototypes))
        network.combination = Discounting(network.num_modalities, network.num_classes)
        network.auxiliary["combined"] = CombinedInTraining(network.combination)


@dataclass(frozen=True)
class FuseSkips:
    """Give each modality's decoder also the skips of the modalities fused with it: see :class:`SkipFusion`."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: its modalities share a decoder."""
        _require_separate(network, "fuses the skips of")
        network.skip_fusion = SkipFusion(network.num_modalities, network.channels[:-1])


@dataclass(frozen=True)
class FuseByMean:
    """Take the mean of the present modalities' features in place of MIA's attention and convolutions."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        network.mia = MeanFusion()


@dataclass(frozen=True)
class ShareEncoder:
    """Use one fully shared encoder for the separate decoders of all modalities."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: its modalities share one already."""
        _require_separate(network, "shares")
        network.encoders = nn.ModuleList([network.encoders[0]] * network.num_modalities)


@dataclass(frozen=True)
class MMFormer:
    """Make the network mmFormer's: an encoder for each modality, fusion by transformers, and one decoder.

    See :mod:`~nnunet_cmc.networks.mmformer`; the numbers are those of the paper, whose deepest maps have 128 channels.

    Args:
        width: of a token, but at most four times the channels of the deepest map.
        heads: of the attention.
        mlp_ratio: hidden width of the transformers' MLP, relative to that of a token.
    """

    width: int = 512
    heads: int = 8
    mlp_ratio: int = 8

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        network.separate(decoders=False)
        *skips, deepest = network.channels
        width = min(self.width, 4 * deepest)
        sizes = network.deepest_grid, width, self.heads, self.mlp_ratio * width
        network.mia = MMFormerFusion(network.num_modalities, deepest, *sizes)
        network.skip_fusion = ConcatenatedSkips(network.num_modalities, skips)


@dataclass(frozen=True)
class DecodeAlone:
    """Predict from each modality alone, too, during training, by another decoder: see :class:`AloneDecoder`."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place."""
        network.auxiliary["alone"] = AloneDecoder(network.build_decoder(network.build_encoder()), network.execution)


@dataclass(frozen=True)
class ShowOnly:
    """Treat all modalities but one as absent, in training and prediction.

    Args:
        modality: its channel.
    """

    modality: int

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: it has no such modality."""
        if self.modality >= network.num_modalities:
            raise ValueError(
                f"There is no modality {self.modality}, as the dataset has {network.num_modalities}, numbered from 0: "
                "name a trainer of another."
            )
        network.only_modality = self.modality


@dataclass(frozen=True)
class TrainAdapters:
    """Freeze transformers except for their adapters and norms; the rest of the network trains."""

    def __call__(self, network: CMCNet) -> None:
        """Change ``network`` in place. ValueError: its encoders are no transformers with adapters."""
        transformers = [module for module in network.encoders.modules() if isinstance(module, SamMed3DEncoder)]
        if not transformers:
            raise ValueError(
                "Adapters belong to a transformer, which the encoder of these plans is not: train with "
                "-tr CMCTrainer, or with -p CMCPlans."
            )
        for transformer in transformers:
            freeze_all_but_adapters(transformer)


@dataclass(frozen=True)
class WithPeer:
    """Train a second network beside the first, with the same changes and other random weights: see :class:`Peer`."""

    def __call__(self, network: CMCNet, peer: CMCNet) -> None:
        """Change ``network`` in place."""
        network.auxiliary[PEER] = Peer(peer)


def _require_separate(network: CMCNet, does: str) -> None:
    if network.shared:
        raise ValueError(
            f"The change {does} separate encoders, and this network has none: put SeparateModalities first."
        )


NetworkChange = (
    SuperviseDeep
    | SeparateModalities
    | PredictAlone
    | OwnDecoderNorms
    | Evidential
    | FuseSkips
    | FuseByMean
    | ShareEncoder
    | MMFormer
    | DecodeAlone
    | ShowOnly
    | TrainAdapters
    | WithPeer
)


def build_changed(build: Callable[[], CMCNet], changes: Sequence[NetworkChange]) -> CMCNet:
    """Build a network with ``changes`` in their order, and last, for a :class:`WithPeer`, a peer with the same ones."""
    network, others = build(), [change for change in changes if not isinstance(change, WithPeer)]
    for change in others:
        change(network)
    for with_peer in (change for change in changes if isinstance(change, WithPeer)):
        with_peer(network, build_changed(build, others))
    return network
