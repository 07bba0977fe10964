"""Beyond the paper: registered scans are fused at every resolution, not at the deepest alone."""

from nnunet_cmc.data.fused_and_split import FusedAndSplitLoader
from nnunet_cmc.networks import CMCNet, SkipFusion
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer


class CMCTrainerSkipFusion(CMCTrainer):
    """A decoder takes the skips of the modalities that its own is fused with, too."""

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        """Give the network a SkipFusion. ValueError where one modality is shown, which nothing is fused with."""
        super().modify_network(network)
        if cls.only_modality is not None:
            raise ValueError(
                f"{cls.__name__} trains on modality {cls.only_modality} alone, and skip fusion needs two: leave one of "
                "both out of the trainer."
            )
        network.skip_fusion = SkipFusion(len(network.encoders), network.skip_channels)


class CMCTrainerFusedAndSplit(CMCTrainerSkipFusion):
    """Every step shows each labelled registered case twice: fused at every resolution, and with modalities missing."""

    pair_loader = FusedAndSplitLoader
