"""EFCD's loss of the modalities' combined evidence."""

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import totals
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.dice_and_ce import Dice
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting


class Discounted(LossTerm):
    """Compute 1 - Dice of what :class:`Discounting` combines, over the labelled rows with several modalities.

    The discounted Dice loss of Huang et al. (MICCAI 2022, arXiv 2206.11739), by which the reliability of modalities is
    learned. Ours: nnU-Net's Dice of the foreground classes, and a supervised loss beside it that is the mean over
    modalities instead of the sum.
    """

    name, uses_unlabeled = "discounted", False
    needs_registered = "the evidence of modalities is combined voxel by voxel"
    needs_several = "with one modality shown there is no other to combine its evidence with"

    def __init__(self, setting: Setting):
        super().__init__()
        self.dice = Dice(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term; 0 where no labelled row has several modalities."""
        (combined,) = output.auxiliary["combined"]
        decoded = batch.predicted[: batch.n_labeled] & output.present[: batch.n_labeled]
        rows = [row for row, modalities in enumerate(decoded.sum(1).tolist()) if modalities > 1]
        if not any(totals([len(rows)], combined.device)):
            return combined[:0].sum()
        return 1 + self.dice(combined[rows], batch.target[rows])
