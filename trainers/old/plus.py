"""Beyond the paper: what raised the Dice of validation subjects, in one trainer (docs/results.md)."""

from nnunet_cmc.trainers.old.ablations import CMCTrainerNoCAC
from nnunet_cmc.trainers.old.copy_paste import CMCTrainerCopyPaste
from nnunet_cmc.trainers.old.deep_supervision import CMCTrainerSkipFusionDeepSupervision


class CMCTrainerPlus(CMCTrainerCopyPaste, CMCTrainerSkipFusionDeepSupervision):
    """Skips are fused, decoders supervised at every resolution, and a mean teacher labels what copy-paste does not."""


class CMCTrainerPlusNoCAC(CMCTrainerPlus, CMCTrainerNoCAC):
    """The same without CAC."""
