"""Class-balanced pseudo-labels of UMML: the most confident voxels of each class."""

import torch
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.terms.supervised_term import over_resolutions, rows_of_all_ranks

FIRST, LAST = 0.2, 0.5  # share of each class's voxels with a pseudo-label, at the start and end of the training
DIGIT = 10  # bits


class ClassBalanced(LossTerm):
    """Dice + CE of each modality of the unlabelled scans against its own most confident predictions.

    Of the voxels predicted as a class, in all unlabelled scans of the modality in the batch, the most confident q %
    are pseudo-labels, and the others are ignored. q rises linearly from 20 to 50 over the training (UMML, Zhu et al.,
    MICCAI 2021, after CBST, Zou et al., ECCV 2018). So rare and difficult classes keep as large a share of their voxels
    as easy ones. Pseudo-labels have no gradient. Ours: Dice beside CE, as in the supervised term; confidences are
    ranked within a batch instead of the whole dataset; restyled rows are left out.
    """

    name = "class_balanced"

    def __init__(self, setting: Setting):
        super().__init__()
        self.num_classes = setting.num_classes
        self.loss = DiceAndCE(setting.batch_dice, ignore_label=setting.num_classes)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the unlabelled scans; an exact 0 with a graph where there is none."""
        share = FIRST + (LAST - FIRST) * self.progress
        hidden = slice(batch.n_labeled, None)
        logits, scans = output.logits[hidden], (batch.scans & output.present)[hidden]
        labels = torch.full_like(logits[:, :, 0], self.num_classes, dtype=torch.int16)
        for m, rows in rows_of_all_ranks(scans).items():
            labels[rows, m] = confident_labels(logits[rows, m].detach(), share)
        return over_resolutions(self.loss, output, hidden, scans, labels)


def confident_labels(logits: Tensor, share: float) -> Tensor:
    """Label the most confident ``share`` of the voxels predicted as each class, with ties.

    Args:
        logits: ``(n, K, D, H, W)``.
        share: of the voxels, rounded up.

    Returns:
        ``(n, D, H, W)`` int16, K where a voxel is not labelled.
    """
    num_classes = logits.shape[1]
    confidence, label = logits.float().softmax(1).max(1)
    # The threshold of each class is over the voxels of all ranks, which exchange counts of digits instead of voxels:
    # positive numbers sort as their bits do.
    bits = confidence.contiguous().view(torch.int32)
    counts = torch.bincount(label.flatten(), minlength=num_classes)
    wanted = (summed(counts.double())[0] * share).ceil()
    lowest = torch.zeros_like(counts, dtype=torch.int32)  # of each class: its leading digits, found one after another
    for shift in (2 * DIGIT, DIGIT, 0):
        candidates = (bits >> (shift + DIGIT)) == lowest[label]
        digits = (bits >> shift) & (2**DIGIT - 1)
        found = torch.bincount((label << DIGIT | digits)[candidates], minlength=num_classes << DIGIT)
        from_top = summed(found.double())[0].view(num_classes, -1).flip(1).cumsum(1)
        above = (from_top < wanted[:, None]).sum(1, keepdim=True)  # digits with too few voxels
        wanted = wanted - from_top.gather(1, (above - 1).clamp(min=0))[:, 0] * (above[:, 0] > 0)
        lowest = lowest << DIGIT | (2**DIGIT - 1 - above[:, 0]).clamp(min=0).int()
    return torch.where(bits >= lowest[label], label, num_classes).to(torch.int16)
