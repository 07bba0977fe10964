"""What each part is worth: CMCTrainer without it, and the ladder that leads up to it.

The ladder (Table 2 of the paper) is CMCTrainerBaseline, CMCTrainerModalityEncoders (+ an encoder per modality),
CMCTrainerNoCAC (+ MIA and CSC, the paper's cross modality collaboration), CMCTrainer (+ CAC, its contrastive
consistency).
"""

from torch import nn

from nnunet_cmc.networks import CMCNet, MeanFusion
from nnunet_cmc.trainers.cmc_trainer import CMCTrainer


class CMCTrainerNoCSC(CMCTrainer):
    def consistency_weights(self) -> dict[str, float]:
        return {**super().consistency_weights(), "alpha": 0.0}


class CMCTrainerNoCAC(CMCTrainer):
    def consistency_weights(self) -> dict[str, float]:
        return {**super().consistency_weights(), "beta": 0.0}


class CMCTrainerNoMIA(CMCTrainer):
    """The mean of the present modalities' features in place of attention and convolutions."""

    @staticmethod
    def modify_network(network: CMCNet) -> None:
        network.mia = MeanFusion()


class CMCTrainerNoModalityDropout(CMCTrainer):
    modality_dropout = 0.0


class CMCTrainerModalityEncoders(CMCTrainerNoCSC, CMCTrainerNoCAC, CMCTrainerNoMIA):
    """Supervised, with an encoder and a decoder per modality."""


class CMCTrainerBaseline(CMCTrainerModalityEncoders):
    """The same with one encoder for all modalities."""

    @staticmethod
    def modify_network(network: CMCNet) -> None:
        CMCTrainerModalityEncoders.modify_network(network)
        network.encoders = nn.ModuleList([network.encoders[0]] * len(network.encoders))
