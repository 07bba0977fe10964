"""L_sep of mmFormer: the prediction from each modality's own maps, against the label."""

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.terms.supervised_term import per_modality, rows_of_all_ranks


class AuxiliarySupervised(LossTerm):
    """Dice + CE of the auxiliary decoder's prediction from each modality, summed over modalities as in the paper.

    Every modality of a labelled row counts, whether or not it is fused.
    """

    name, uses_unlabeled = "auxiliary", False

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = DiceAndCE(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the labelled rows; an exact 0 with a graph where they show nothing."""
        (logits,) = output.auxiliary["alone"]
        rows = rows_of_all_ranks(output.present[: batch.n_labeled])
        return len(rows) * per_modality(self.loss, logits[: batch.n_labeled], rows, batch.target)
