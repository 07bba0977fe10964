"""Beyond the paper: decoders are supervised at every resolution, as nnU-Net's own trainer does it."""

from typing import cast

from torch import Tensor
from torch.nn.functional import interpolate

from nnunet_cmc.networks import CMCNet, CMCOutput
from nnunet_cmc.networks.decoder import Predicting
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.old.skip_fusion import CMCTrainerSkipFusion


class CMCTrainerDeepSupervision(CMCTrainer):
    """Every decoder predicts at its coarser resolutions, too, each weighted half as much as the one before.

    nnU-Net's weights halve likewise, but leave the coarsest resolution out.
    """

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        super().modify_network(network)
        for decoder in network.decoders:
            cast(Predicting, decoder).supervise_deep()

    def _supervised(self, output: CMCOutput, batch: dict) -> Tensor:
        scales = (output.logits, *output.deep)
        weights = [0.5**i for i in range(len(scales))]
        terms = []
        for logits in scales:
            target = interpolate(batch["target"].float(), logits.shape[3:], mode="nearest-exact")
            terms.append(super()._supervised(output._replace(logits=logits), {**batch, "target": target}))
        return sum(w * term for w, term in zip(weights, terms, strict=True)) / sum(weights)


class CMCTrainerSkipFusionDeepSupervision(CMCTrainerSkipFusion, CMCTrainerDeepSupervision):
    """Both: of ours the best so far (docs/results.md)."""
