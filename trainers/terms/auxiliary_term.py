"""L_sep of mmFormer: what each modality's own maps predict alone, against the label."""

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.terms.supervised_term import dice_and_ce, per_modality


class AuxiliarySupervised(LossTerm):
    """Dice + CE of the auxiliary decoder's prediction from each modality, summed over modalities as in the paper.

    Every modality of a labelled row counts, whether or not it is shown to the fusion.
    """

    name, uses_unlabeled = "auxiliary", False

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = dice_and_ce(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the labelled rows; an exact 0 with a graph where they show nothing."""
        (logits,) = output.auxiliary["alone"]
        there = output.present[: batch.n_labeled]
        return there.any(0).sum() * per_modality(self.loss, logits[: batch.n_labeled], there, batch.target)
