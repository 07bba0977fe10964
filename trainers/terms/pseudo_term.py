"""The loss of the unlabelled rows against their pseudo-labels."""

from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.terms.supervised_term import over_resolutions


class Pseudo(LossTerm):
    """Dice + CE of each modality of the unlabelled rows against ``pseudo_targets``; K is ignored.

    At every resolution, as in :class:`Supervised`; rows are weighted by ``pseudo_weights``.
    """

    name = "pseudo"

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = DiceAndCE(setting.batch_dice, ignore_label=setting.num_classes)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the unlabelled rows."""
        if batch.pseudo_targets is None:  # whole scans are not labelled yet
            return output.logits[:0].sum()
        hidden = slice(batch.n_labeled, None)
        present, targets = output.present[hidden], batch.pseudo_targets
        return over_resolutions(self.loss, output, hidden, present, targets, batch.pseudo_weights)
