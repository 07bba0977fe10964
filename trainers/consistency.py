"""CSC and CAC on a batch of pairs: which form each pair gets, and what it needs."""

import torch
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d, avg_pool3d, one_hot

from nnunet_cmc.data.pairs import POSITION_STRIDE
from nnunet_cmc.losses import CACLoss, CSCLoss
from nnunet_cmc.networks import CMCOutput

CONFIDENT = 0.9  # an unlabelled voxel stands for its class from this probability on


class Consistency(nn.Module):
    """The two terms between modalities: CSC over all pairs, CAC over the unlabelled ones.

    A pair whose modalities are one row is registered and gets the ``paired`` forms; two rows are different grids and
    get the ``unpaired`` ones, whose banks are this module's state.

    Args:
        num_modalities, num_classes, num_channels: M, K and C of the network's output.
    """

    def __init__(self, num_modalities: int, num_classes: int, num_channels: int):
        super().__init__()
        unpaired_csc = CSCLoss(
            "unpaired", num_modalities=num_modalities, num_classes=num_classes, num_channels=num_channels
        )
        unpaired_cac = CACLoss("unpaired", num_modalities=num_modalities, num_classes=num_classes)
        self.csc = nn.ModuleDict({"paired": CSCLoss("paired"), "unpaired": unpaired_csc})
        self.cac = nn.ModuleDict({"paired": CACLoss("paired"), "unpaired": unpaired_cac})

    def forward(self, output: CMCOutput, target: Tensor, pairs: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Both terms, each the mean over its pairs.

        Args:
            output: of the network for all rows.
            target: ``(N_labeled, 1, D, H, W)``, of the first rows.
            pairs: ``(P, M)``, the row of each modality, or -1.
            positions: ``(N, 3, d, h, w)`` relative positions in the body.

        Returns:
            (CSC, CAC), scalars; an exact 0 with a graph where no pair is concerned.
        """
        registered, others = rows_by_form(pairs)
        csc = self._mean(
            [
                (len(registered), lambda: self.csc["paired"](output.features[registered], output.present[registered])),
                (len(others) / 2, lambda: self._unpaired_csc(output, target, others)),
            ],
            output.features,
        )
        n_labeled = len(target)
        registered, others = registered[registered >= n_labeled], others[others >= n_labeled]
        cac = self._mean(
            [
                (
                    len(registered),
                    lambda: self.cac["paired"](output.logits[registered].softmax(2), output.present[registered]),
                ),
                (len(others) / 2, lambda: self._unpaired_cac(output, others, positions)),
            ],
            output.logits,
        )
        return csc, cac

    def _unpaired_csc(self, output: CMCOutput, target: Tensor, rows: Tensor) -> Tensor:
        labeled, hidden = rows[rows < len(target)], rows[rows >= len(target)]
        num_modalities, num_classes = output.logits.shape[1:3]
        truth = one_hot(target[labeled, 0].long(), num_classes).movedim(-1, 1).to(output.features.dtype)
        confident = output.logits[hidden].detach().softmax(2).masked_fill(~_spatial(output.present[hidden]), 0).amax(1)
        weights = torch.cat([truth, (confident > CONFIDENT).to(truth.dtype)])
        depth, height, width = output.features.shape[3:]
        weights = adaptive_avg_pool3d(weights, (depth, height, width))[:, None]
        weights = weights.expand(-1, num_modalities, -1, -1, -1, -1)
        rows = torch.cat([labeled, hidden])
        return self.csc["unpaired"](output.features[rows], output.present[rows], weights)

    def _unpaired_cac(self, output: CMCOutput, rows: Tensor, positions: Tensor) -> Tensor:
        probabilities = output.logits[rows].softmax(2)
        coarse = avg_pool3d(probabilities.flatten(0, 1), POSITION_STRIDE).unflatten(0, probabilities.shape[:2])
        where = positions[rows, None].expand(-1, coarse.shape[1], -1, -1, -1, -1)
        return self.cac["unpaired"](coarse, output.present[rows], where)

    @staticmethod
    def _mean(parts, graph: Tensor) -> Tensor:
        """Mean of the losses of ``(number of pairs, loss)``, of those that have pairs."""
        parts = [(count, loss) for count, loss in parts if count]
        if not parts:
            return graph.sum() * 0
        return sum(count * loss() for count, loss in parts) / sum(count for count, _ in parts)


def rows_by_form(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of registered pairs (one row shows several modalities), and rows of the pairs that are two rows."""
    there = pairs >= 0
    first = pairs.amax(1, keepdim=True)
    one_row = ((pairs == first) | ~there).all(1)
    several = there.sum(1) > 1
    registered = first[one_row & several, 0]
    others = pairs[~one_row & several]
    return registered, others[others >= 0]


def _spatial(present: Tensor) -> Tensor:
    """``(B, M)`` -> ``(B, M, 1, 1, 1, 1)``."""
    return present[:, :, None, None, None, None]
