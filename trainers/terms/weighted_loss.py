"""nnU-Net's Dice + CE of rows that count unequally."""

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class WeightedDiceAndCE(nn.Module):
    """nnU-Net's Dice + CE, in which row i counts w_i of a row; rows that all count 1 have nnU-Net's own value.

    CE is ``sum_v w_i ce_v / V`` over all V voxels. Dice of samples is ``sum_i w_i Dice_i / N``. Dice over the batch has
    w_i of each voxel of row i in its sums, and is multiplied by the mean of w. So nothing is divided by the sum of the
    weights: a batch whose only row is uncertain teaches little.

    Args:
        batch_dice: whether Dice is taken over the batch, or of every sample by itself.
        ignore_label: label value of voxels that do not count.
    """

    def __init__(self, batch_dice: bool, ignore_label: int):
        super().__init__()
        self.batch_dice, self.ignore_label = batch_dice, ignore_label
        self.dice = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, batch_dice, do_bg=False, smooth=1e-5, ddp=False)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor) -> Tensor:
        """Compute the loss, a scalar.

        Args:
            logits: ``(N, K, D, H, W)``.
            target: ``(N, 1, D, H, W)``, label values 0 to K - 1 and ``ignore_label``.
            weights: ``(N)``, not negative.
        """
        target = target.long()
        known = target != self.ignore_label
        voxels = cross_entropy(logits, target[:, 0], ignore_index=self.ignore_label, reduction="none")
        ce = (weights * voxels.flatten(1).sum(1)).sum() / known.sum().clamp_min(1)
        label = torch.where(known, target, 0)
        together = [slice(None)] if self.batch_dice else [slice(i, i + 1) for i in range(len(logits))]
        dice = [self._weighted_dice(logits[rows], label[rows], known[rows], weights[rows]) for rows in together]
        return ce + torch.stack(dice).mean()

    def _weighted_dice(self, logits: Tensor, label: Tensor, known: Tensor, weights: Tensor) -> Tensor:
        mean = weights.mean()
        relative = weights / mean.clamp_min(torch.finfo(weights.dtype).tiny)
        return mean * self.dice(logits, label, known * relative[:, None, None, None, None])
