"""Cross pseudo supervision: two networks, each trained on the pseudo-labels of the other."""

import torch
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.peer import of_peer
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting
from nnunet_cmc.trainers.terms.supervised_term import Supervised, over_resolutions


class PeerSupervised(Supervised):
    """:class:`Supervised` of the peer, the second network."""

    name = "peer"

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the labelled rows."""
        return super().forward(of_peer(output), batch)


class CPS(LossTerm):
    """Loss of each of two networks against the classes that the other one predicts.

    As in the paper (Chen et al., "Semi-supervised semantic segmentation with cross pseudo supervision", CVPR 2021): the
    first network against the argmax of the second and vice versa, at all voxels, however uncertain; the mean over the
    unlabelled rows plus the mean over the labelled ones. Re-implemented from the description. Ours: Dice + CE in place
    of CE, for each modality and at every resolution as in :class:`Supervised`, against the classes at the finest
    resolution; and a rising weight, see ``LAMBDA``.
    """

    name = "cps"

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = DiceAndCE(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term; no gradient flows through the classes."""
        decoded, peer, n = batch.predicted & output.present, of_peer(output), batch.n_labeled
        losses = [
            over_resolutions(self.loss, student, rows, decoded[rows], teacher.logits[rows].argmax(2))
            for student, teacher in ((output, peer), (peer, output))
            for rows in (slice(n), slice(n, None))
        ]
        return torch.stack(losses).sum()
