"""The consistency losses and their schedules, in plain PyTorch and usable without nnU-Net."""

from nnunet_cmc.losses.banks import MovingAverageBank
from nnunet_cmc.losses.cac import CACLoss
from nnunet_cmc.losses.contrast import Similarity
from nnunet_cmc.losses.csc import CSCLoss
from nnunet_cmc.losses.schedules import alpha, beta

__all__ = ["CACLoss", "CSCLoss", "MovingAverageBank", "Similarity", "alpha", "beta"]
