"""Beyond the paper: habits of nnU-Net's own trainer that keep a network from learning few labelled scans by heart."""

from nnunet_cmc.trainers.old.ablations import CMCTrainerNoCAC, CMCTrainerNoCSC
from nnunet_cmc.trainers.old.deep_supervision import CMCTrainerSkipFusionDeepSupervision


class CMCTrainerFewLabels(CMCTrainerSkipFusionDeepSupervision):
    """Skip fusion and deep supervision, mirrored along every axis, and Dice of every sample by itself."""

    mirrored_axes = (0, 1, 2)
    batch_dice = False


class CMCTrainerFewLabelsNoCSC(CMCTrainerFewLabels, CMCTrainerNoCSC):
    """Without CSC."""


class CMCTrainerFewLabelsNoCAC(CMCTrainerFewLabels, CMCTrainerNoCAC):
    """Without CAC."""


class CMCTrainerFewLabelsSupervised(CMCTrainerFewLabelsNoCSC, CMCTrainerFewLabelsNoCAC):
    """Without both: the unlabelled scans teach nothing."""
