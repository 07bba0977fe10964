"""nnU-Net's Dice + CE over the rows of all ranks, which may have weights."""

import torch
from nnunetv2.training.loss.dice import MemoryEfficientSoftDiceLoss
from nnunetv2.utilities.helpers import softmax_helper_dim1
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from nnunet_cmc.losses.ranks import distributed, summed


class Dice(nn.Module):
    """nnU-Net's soft Dice of the foreground classes, negated: over the batch, or the mean over its samples.

    With weights w, Dice of samples is ``sum_i w_i Dice_i / N``. Dice over the batch weights each voxel of row i by w_i
    in its sums, and is multiplied by the mean of w.

    Args:
        batch_dice: whether Dice is taken over the batch, or of every sample by itself.
    """

    def __init__(self, batch_dice: bool):
        super().__init__()
        self.batch_dice = batch_dice
        self.dice = MemoryEfficientSoftDiceLoss(softmax_helper_dim1, batch_dice, do_bg=False, smooth=1e-5, ddp=False)

    def forward(
        self, logits: Tensor, label: Tensor, known: Tensor | None = None, weights: Tensor | None = None
    ) -> Tensor:
        """Compute a scalar, the same on all ranks.

        Args:
            logits: ``(N, K, D, H, W)``.
            label: ``(N, 1, D, H, W)``, values from 0 to K - 1.
            known: ``(N, 1, D, H, W)`` bool, the voxels that count; all, if None.
            weights: ``(N)``, not negative; 1, if None.
        """
        n = logits.new_full((), len(logits), dtype=torch.float32)
        if weights is None:
            if self.batch_dice:
                return self._of_batch(logits, label, known)
            of_rank = n * self.dice(logits, label, known) if len(logits) else logits.sum()
        elif self.batch_dice:
            weight, rows = summed(weights.sum(), n)
            mean = weight / rows.clamp(min=1)
            relative = (weights / mean.clamp_min(torch.finfo(mean.dtype).tiny))[:, None, None, None, None]
            counts = relative.expand(label.shape) if known is None else known * relative
            return mean * self._of_batch(logits, label, counts)
        else:
            each = ((x if x is None else x[i : i + 1] for x in (logits, label, known)) for i in range(len(logits)))
            of_rank = sum((w * self.dice(*row) for w, row in zip(weights, each, strict=True)), logits[:0].sum())
        total, rows = summed(of_rank, n)
        return total / rows.clamp(min=1)

    def _of_batch(self, logits: Tensor, label: Tensor, counts: Tensor | None) -> Tensor:
        self.dice.ddp = distributed()
        if self.dice.ddp:  # nnU-Net gathers the sums of each row, and ranks may have unlike numbers of rows
            logits, label = _as_one_row(logits), _as_one_row(label)
            counts = None if counts is None else _as_one_row(counts)
        return self.dice(logits, label, counts)


def _as_one_row(x: Tensor) -> Tensor:
    return x.transpose(0, 1).flatten(1)[None]


class DiceAndCE(nn.Module):
    """Compute nnU-Net's Dice + CE; each rank gives its rows, and gets the loss over all.

    CE is ``sum_v w_i ce_v / V`` over all V voxels, with w = 1 if no weights are given; for Dice see :class:`Dice`. Both
    are not divided by the sum of the weights: a batch whose only row is uncertain has a small gradient.

    Args:
        batch_dice: see :class:`Dice`.
        ignore_label: label value of voxels that do not count.
    """

    def __init__(self, batch_dice: bool, ignore_label: int | None = None):
        super().__init__()
        self.ignore_label = ignore_label
        self.dice = Dice(batch_dice)

    def forward(self, logits: Tensor, target: Tensor, weights: Tensor | None = None) -> Tensor:
        """Compute the loss, a scalar; an exact 0 if no voxel counts.

        Args:
            logits: ``(N, K, D, H, W)``.
            target: ``(N, 1, D, H, W)``, label values 0 to K - 1 and ``ignore_label``.
            weights: ``(N)``, not negative.
        """
        target = target.long()
        known = None if self.ignore_label is None else target != self.ignore_label
        ignored = -100 if self.ignore_label is None else self.ignore_label
        voxels = cross_entropy(logits, target[:, 0], ignore_index=ignored, reduction="none").flatten(1).sum(1)
        counted = voxels.new_full((), target.numel()) if known is None else known.sum().to(voxels.dtype)
        ce, count = summed((voxels if weights is None else weights * voxels).sum(), counted)
        label = target if known is None else torch.where(known, target, 0)
        loss = ce / count.clamp_min(1) + self.dice(logits, label, known, weights)
        return loss * (count > 0)  # Dice of nothing is perfect
