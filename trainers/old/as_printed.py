"""The paper to the letter, for the record: it is not expected to align anything, nor to learn much from scratch."""

import numpy as np
import torch
from torch import nn

from nnunet_cmc.data.fused_pairs import FusedPairLoader
from nnunet_cmc.losses import CACLoss, CSCLoss
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer
from nnunet_cmc.trainers.old.consistency import Consistency


class PrintedConsistency(Consistency):
    """Equations (1) and (3) as printed, for every pair; the batch has no others than fused ones."""

    def __init__(self, num_modalities: int, num_classes: int, num_channels: int):
        super().__init__(num_modalities, num_classes, num_channels)
        self.csc = nn.ModuleDict({"paired": CSCLoss("printed")})
        self.cac = nn.ModuleDict({"paired": CACLoss("printed")})

    def _unpaired_csc(self, output: CMCOutput, target: torch.Tensor, rows: torch.Tensor) -> torch.Tensor:
        return output.features[:0].sum()

    def _unpaired_cac(self, output: CMCOutput, rows: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
        return output.logits[:0].sum()


class CMCTrainerAsPrinted(CMCTrainer):
    """Printed losses, both printed schedules, Adam at 1e-5, no modality dropout, scans of two patients fused.

    Plans with a batch of 4 are the paper's; predictions of all modalities are averaged with equal weights.
    """

    modality_dropout = 0.0
    pair_loader = FusedPairLoader
    consistency_losses = PrintedConsistency
    rate = 1e-5

    def configure_optimizers(self):
        """Adam at a constant rate, in place of what CMCTrainer would take."""
        super().configure_optimizers()  # where another part may freeze weights
        self.initial_lr = self.rate
        optimizer = torch.optim.Adam(self.network.parameters(), self.rate)
        return optimizer, ConstantRate()

    def choose_rate(self) -> None:
        """Nothing to choose: the rate does not depend on the weights."""
        self.print_to_log_file(f"Training as printed: Adam at a constant {self.rate:g}.")

    def calibrate(self, confusion: np.ndarray) -> None:
        """Nothing: all modalities are believed alike."""


class ConstantRate:
    """nnU-Net steps a schedule every epoch; this one stands still."""

    initial_lr = CMCTrainerAsPrinted.rate

    def step(self, current_step: float | None = None) -> None:
        """Nothing changes."""
