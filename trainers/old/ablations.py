"""What each part is worth: CMCTrainer without it or with another, and the ladder that leads up to it.

The ladder (Table 2 of the paper) is CMCTrainerBaseline, CMCTrainerModalityEncoders (+ an encoder per modality),
CMCTrainerNoCAC (+ MIA and CSC, the paper's cross modality collaboration), CMCTrainer (+ CAC, its contrastive
consistency).
"""

import torch
from torch import nn

from nnunet_cmc.losses import alpha
from nnunet_cmc.networks import CMCNet, MeanFusion
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.old.consistency import Consistency


class CMCTrainerNoCSC(CMCTrainer):
    def consistency_weights(self) -> dict[str, float]:
        return {**super().consistency_weights(), "alpha": 0.0}


class CMCTrainerNoCAC(CMCTrainer):
    def consistency_weights(self) -> dict[str, float]:
        return {**super().consistency_weights(), "beta": 0.0}


class CMCTrainerNoMIA(CMCTrainer):
    """The mean of the present modalities' features in place of attention and convolutions."""

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        super().modify_network(network)
        network.mia = MeanFusion()


class CMCTrainerNoModalityDropout(CMCTrainer):
    modality_dropout = 0.0


class CMCTrainerModalityEncoders(CMCTrainerNoCSC, CMCTrainerNoCAC, CMCTrainerNoMIA):
    """Supervised, with an encoder and a decoder per modality."""


class CMCTrainerBaseline(CMCTrainerModalityEncoders):
    """The same with one encoder for all modalities."""

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        super().modify_network(network)
        network.encoders = nn.ModuleList([network.encoders[0]] * len(network.encoders))


class CMCTrainerCorrectedSchedules(CMCTrainer):
    """Both weights rise: the printed beta is highest while predictions are noise, and gone when they are good."""

    schedules = (alpha, alpha)


class OneSidedConsistency(Consistency):
    one_sided = True


class CMCTrainerOneSided(CMCTrainer):
    """CAC teaches the less certain modality only, registered scans by what all modalities together predict."""

    consistency_losses = OneSidedConsistency

    def completed(self, batch: dict) -> dict:
        """CMCTrainer's, with what all modalities together predict in ``joint``, without gradient."""
        batch = super().completed(batch)
        with torch.no_grad(), self._precision():
            joint = self.bare_network(batch["data"][len(batch["target"]) :]).softmax(1)
        return {**batch, "joint": joint}


class OneModality(CMCTrainer):
    """Each modality alone: the others are as good as absent, in training and prediction alike."""

    @classmethod
    def modify_network(cls, network: CMCNet) -> None:
        super().modify_network(network)
        network.register_forward_pre_hook(cls._show_one_modality)

    @classmethod
    def _show_one_modality(cls, network: CMCNet, inputs: tuple) -> tuple:
        shown = torch.zeros_like(inputs[0])
        shown[:, cls.only_modality] = inputs[0][:, cls.only_modality]
        return (shown, *inputs[1:])


class CMCTrainerOnlyModality0(OneModality):
    only_modality = 0


class CMCTrainerOnlyModality1(OneModality):
    only_modality = 1


class CMCTrainerOnlyModality2(OneModality):
    only_modality = 2
