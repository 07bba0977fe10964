"""CAC, contrastive anatomical consistency, over the unlabelled pairs of a batch, or the labelled ones."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool3d

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses import CACLoss
from nnunet_cmc.losses.ranks import any_rank
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.pair_term import PairTerm, rows_by_form


class CAC(PairTerm):
    """CAC of the unlabelled pairs of a batch, or of the labelled ones where it has no other: see :class:`CACLoss`.

    Attributes:
        labeled: whether labelled pairs are always compared, too.
    """

    name, loss, bank = "cac", CACLoss, ("num_modalities", "num_classes")
    needs_several = "with one modality shown there is no other to compare its predictions with"
    labeled: ClassVar[bool] = False

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the mean over the pairs; an exact 0 with a graph where there is none."""
        registered, others = rows_by_form(batch.pairs)
        predicted = output.present & batch.predicted
        if not self.labeled and any_rank(batch.n_labeled < len(batch.data), output.logits.device):
            registered, others = registered[registered >= batch.n_labeled], others[others >= batch.n_labeled]
        return self.mean(
            output.logits,
            len(registered),
            lambda: self._registered(output.logits[registered], predicted[registered]),
            len(others) / 2,
            lambda: self._unpaired(output, predicted, others, batch),
        )

    def _registered(self, logits: Tensor, predicted: Tensor) -> Tensor:
        if logits.shape[1] > 2 and not any_rank(bool((predicted.sum(1) > 2).any()), logits.device):
            # predictions of subsets are at random places, and cases are contrasted within two columns alone
            order = torch.argsort(predicted.int(), dim=1, descending=True, stable=True)[:, :2]
            logits = logits.take_along_dim(order[:, :, None, None, None, None], 1)
            predicted = predicted.gather(1, order)
        return self.forms["paired"](logits.softmax(2), predicted)

    def _unpaired(self, output: CMCOutput, predicted: Tensor, rows: Tensor, batch: Batch) -> Tensor:
        probabilities = output.logits[rows].softmax(2)
        coarse = avg_pool3d(probabilities.flatten(0, 1), batch.position_stride).unflatten(0, probabilities.shape[:2])
        where = batch.positions[rows, None].expand(-1, coarse.shape[1], -1, -1, -1, -1)
        return self.forms["unpaired"](coarse, predicted[rows], where)
