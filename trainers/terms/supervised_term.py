"""L_Sup: Dice and cross-entropy of every present modality of the labelled rows, at every resolution predicted."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import totals
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.rows import rows_of
from nnunet_cmc.trainers.terms.dice_and_ce import DiceAndCE
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting


class Supervised(LossTerm):
    """nnU-Net's Dice + CE of each modality against its label, and the mean over modalities.

    With deep supervision, coarser resolutions are weighted as in nnU-Net. The paper prints CE for one modality and Dice
    for the other.
    """

    name, uses_unlabeled = "supervised", False

    def __init__(self, setting: Setting):
        super().__init__()
        self.loss = DiceAndCE(setting.batch_dice)

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term over the labelled rows."""
        labeled = slice(batch.n_labeled)
        decoded = batch.predicted[labeled] & output.present[labeled]
        return over_resolutions(self.loss, output, labeled, decoded, batch.target)


def over_resolutions(
    loss: nn.Module, output: CMCOutput, rows: slice, decoded: Tensor, target: Tensor, row_weights: Tensor | None = None
) -> Tensor:
    """Compute :func:`per_modality` at every resolution that ``rows`` were predicted at, weighted as in nnU-Net.

    Each resolution has half the weight of the next finer one; the coarsest, unless it is the only one, has none.

    Args:
        loss: see :func:`per_modality`.
        output: of all rows of the batch.
        rows: those that count, N of them.
        decoded: ``(N, M)`` bool, the modalities of these rows that are compared.
        target: ``(N, 1 or M, D, H, W)``, of these rows at full resolution.
        row_weights: ``(N)``, of these rows, for a ``loss`` that takes them.
    """
    scales = (output.logits, *output.deep)
    scales = scales[: max(1, len(scales) - 1)]
    weights = [0.5**i for i in range(len(scales))]
    total = torch.zeros((), device=output.logits.device)
    shown = rows_of_all_ranks(decoded)
    for weight, logits in zip(weights, scales, strict=True):
        coarse = interpolate(target.float(), logits.shape[3:], mode="nearest-exact")
        total = total + weight * per_modality(loss, logits[rows], shown, coarse, row_weights)
    return total / sum(weights)


def rows_of_all_ranks(decoded: Tensor) -> dict[int, list[int]]:
    """Return this rank's rows of each modality that any rank has decoded; ``decoded (N, M)`` bool is this rank's."""
    mask = decoded.tolist()
    rows = rows_of(mask)
    here = [len(rows.get(m, ())) for m in range(decoded.shape[1])]
    return {m: rows.get(m, []) for m, count in enumerate(totals(here, decoded.device)) if count}


def per_modality(
    loss: nn.Module, logits: Tensor, rows: Mapping[int, list[int]], target: Tensor, row_weights: Tensor | None = None
) -> Tensor:
    """Compute ``loss`` of each modality over the rows that decoded it, and the mean over modalities.

    Args:
        loss: of logits ``(n, K, D, H, W)`` and labels ``(n, 1, D, H, W)``, and of weights ``(n)`` if there are any.
        logits: ``(N, M, K, D, H, W)``.
        rows: of each modality, see :func:`rows_of_all_ranks`.
        target: ``(N, 1 or M, D, H, W)``, for all modalities or for each.
        row_weights: ``(N)``, of the rows.
    """
    if not rows:
        return logits[:0].sum()
    target = target.expand(-1, logits.shape[1], -1, -1, -1)
    losses = []
    for m, of_m in rows.items():
        weighted = () if row_weights is None else (row_weights[of_m],)
        losses.append(loss(logits[of_m, m], target[of_m, m : m + 1], *weighted))
    return torch.stack(losses).mean()
