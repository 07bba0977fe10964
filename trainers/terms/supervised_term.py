"""L_Sup: Dice and cross-entropy of every present modality of the labelled rows, at every resolution predicted."""

import torch
from nnunetv2.training.loss.compound_losses import DC_and_CE_loss
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.rows import rows_of
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting


class Supervised(LossTerm):
    """nnU-Net's Dice + CE of each modality against its label, and the mean over modalities.

    Where decoders predict at coarser resolutions, too, each weighs half as much as the one before. (nnU-Net's weights
    halve likewise, but leave the coarsest resolution out.) The paper prints CE for one modality and Dice for the other.
    """

    name = "supervised"

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = dice_and_ce(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the labelled rows."""
        labeled = slice(batch.n_labeled)
        decoded = batch.present[labeled] & output.present[labeled]
        scales = (output.logits, *output.deep)
        weights = [0.5**i for i in range(len(scales))]
        total = torch.zeros((), device=output.logits.device)
        for weight, logits in zip(weights, scales, strict=True):
            target = interpolate(batch.target.float(), logits.shape[3:], mode="nearest-exact")
            total = total + weight * per_modality(self.loss, logits[labeled], decoded, target)
        return total / sum(weights)


def dice_and_ce(batch_dice: bool, ignore_label: int | None = None) -> DC_and_CE_loss:
    """Build nnU-Net's loss; it is given the rows of all ranks.

    Args:
        batch_dice: whether Dice is taken over the batch, or of every sample by itself.
        ignore_label: label value of voxels that do not count.
    """
    dice = {"batch_dice": batch_dice, "smooth": 1e-5, "do_bg": False, "ddp": False}
    return DC_and_CE_loss(dice, {}, ignore_label=ignore_label, dice_class=MemoryEfficientSoftDiceLoss)


def per_modality(loss: nn.Module, logits: Tensor, decoded: Tensor, target: Tensor) -> Tensor:
    """Compute ``loss`` of each modality over the rows that decoded it, and their mean: none hides another's failure.

    Args:
        loss: of logits ``(n, K, D, H, W)`` and labels ``(n, 1, D, H, W)``.
        logits: ``(N, M, K, D, H, W)``.
        decoded: ``(N, M)`` bool.
        target: ``(N, 1 or M, D, H, W)``, for all modalities or for each.
    """
    target = target.expand(-1, decoded.shape[1], -1, -1, -1)
    rows = rows_of(decoded.tolist())
    if not rows:
        return logits[:0].sum()
    return torch.stack([loss(logits[of_m, m], target[of_m, m : m + 1]) for m, of_m in rows.items()]).mean()
