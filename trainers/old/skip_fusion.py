"""Beyond the paper: registered scans are fused at every resolution, not at the deepest alone."""

from nnunet_cmc.data.fused_and_split import FusedAndSplitLoader
from nnunet_cmc.networks import CMCNet, SkipFusion
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer


class CMCTrainerSkipFusion(CMCTrainer):
    """A decoder takes the skips of the modalities that its own is fused with, too."""

    @staticmethod
    def modify_network(network: CMCNet) -> None:
        network.skip_fusion = SkipFusion(len(network.encoders), network.skip_channels)


class CMCTrainerFusedAndSplit(CMCTrainerSkipFusion):
    """Every step shows each labelled registered case twice: fused at every resolution, and with modalities missing."""

    pair_loader = FusedAndSplitLoader
