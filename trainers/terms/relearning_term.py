"""CML's pseudo-label re-learning: the best modality of a registered scan supervises the others."""

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.cac import partner_dice
from nnunet_cmc.losses.contrast import full_precision
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.validation_dice import MEMORY, comparable_dice, dice_of_shown


class Relearning(LossTerm):
    """Soft CE + soft Dice against the prediction of the row's best modality, over registered unlabelled rows.

    From CML (Zhang et al., Medical Image Analysis 83, 102656, 2023), re-implemented from the description: one modality
    segments better than the other, and its soft predictions, without gradient, are the labels of the other. Ours: the
    better one has the higher mean Dice of the foreground classes that all modalities show on validation patches, a
    moving average over epochs; of more than two modalities, the best one in a row supervises all others of the row;
    both networks continue to train on labels; full resolution only, even with deep supervision.

    A row of one modality is left out, and so is every row before the first validation.

    Attributes:
        dice: ``(M)``, of each modality alone; 0 if unknown.
    """

    name = "relearning"
    needs_several = "with one modality shown there is no other to supervise it"
    dice: Tensor

    def __init__(self, setting: Setting):
        super().__init__()
        self.register_buffer("dice", torch.zeros(setting.num_modalities))

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the mean over the supervised modalities of all rows; an exact 0 with a graph if there are none."""
        hidden = slice(batch.n_labeled, None)
        logits, present = output.logits[hidden], output.present[hidden]
        best, teacher = (self.dice * present).max(1)
        learns = (present & (best > 0)[:, None]).scatter(1, teacher[:, None], False)
        rows, students = learns.nonzero(as_tuple=True)
        with torch.autocast(logits.device.type, enabled=False):
            learned = full_precision(logits[rows, students])
            taught = full_precision(logits[rows, teacher[rows]].detach()).softmax(1)
            dice, shown = partner_dice(learned.softmax(1), taught)
            disagreement = ((1 - dice) * shown).sum()  # rows that show a class
            ce = cross_entropy(learned, taught, reduction="none").flatten(1).mean(1).sum()
            of_rank = ce, disagreement, *(learned.new_full((), len(rows)), shown.sum().to(ce.dtype))
            ce, disagreement, count, n_shown = summed(*of_rank)
            return ce / count.clamp(min=1) + disagreement / n_shown.clamp(min=1)

    def validated(self, confusion: np.ndarray) -> None:
        """Update the Dice of the modalities whose validation patches show a foreground class."""
        new = comparable_dice(torch.from_numpy(dice_of_shown(confusion))).to(self.dice)
        moved = torch.where(self.dice > 0, torch.lerp(new, self.dice, MEMORY), new)
        self.dice.copy_(torch.where(new.isnan(), self.dice, moved))
