"""CSC, channel-wise semantic consistency, over all pairs of a batch."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d, one_hot

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses import CSCLoss
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.pair_term import PairTerm, rows_by_form

CONFIDENT = 0.9  # lowest probability at which an unlabelled voxel counts for its predicted class


class CSC(PairTerm):
    """CSC of labelled and unlabelled pairs: see :class:`CSCLoss`."""

    name, loss, bank = "csc", CSCLoss, ("num_modalities", "num_classes", "num_channels")
    needs_several = "with one modality shown there is no other to compare its features with"

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the mean over the pairs; an exact 0 with a graph where there is none."""
        registered, others = rows_by_form(batch.pairs)
        return self.mean(
            output.features,
            len(registered),
            lambda: self.forms["paired"](output.features[registered], output.present[registered]),
            len(others) / 2,
            lambda: self._unpaired(output, batch.target, others),
        )

    def _unpaired(self, output: CMCOutput, target: Tensor, rows: Tensor) -> Tensor:
        labeled, hidden = rows[rows < len(target)], rows[rows >= len(target)]
        num_modalities, num_classes = output.logits.shape[1:3]
        truth = one_hot(target[labeled, 0].long(), num_classes).movedim(-1, 1).to(output.features.dtype)
        present = output.present[hidden][:, :, None, None, None, None]
        confident = output.logits[hidden].detach().softmax(2).masked_fill(~present, 0).amax(1)
        weights = torch.cat([truth, (confident > CONFIDENT).to(truth.dtype)])
        depth, height, width = output.features.shape[3:]
        weights = adaptive_avg_pool3d(weights, (depth, height, width))[:, None]
        weights = weights.expand(-1, num_modalities, -1, -1, -1, -1)
        rows = torch.cat([labeled, hidden])
        return self.forms["unpaired"](output.features[rows], output.present[rows], weights)
