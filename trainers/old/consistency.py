"""CSC and CAC on a batch of pairs: which form each pair gets, and what it needs."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool3d, avg_pool3d, one_hot

from nnunet_cmc.data.pairs import POSITION_STRIDE
from nnunet_cmc.losses import CACLoss, CSCLoss, Similarity
from nnunet_cmc.networks import CMCOutput

CONFIDENT = 0.9  # an unlabelled voxel stands for its class from this probability on


class Consistency(nn.Module):
    """The two terms between modalities: CSC over all pairs, CAC over the unlabelled ones.

    A pair whose modalities are one row is registered and gets the ``paired`` forms; two rows are different grids and
    get the ``unpaired`` ones, whose banks are this module's state.

    Args:
        num_modalities, num_classes, num_channels: M, K and C of the network's output.

    Attributes:
        similarity: of the last call, for ``csc`` and ``cac``: the mean similarity of partners and of all others, over
            both forms.
    """

    one_sided = False  # CAC: see CACLoss

    def __init__(self, num_modalities: int, num_classes: int, num_channels: int):
        super().__init__()
        banks = {"num_modalities": num_modalities, "num_classes": num_classes}
        unpaired_csc = CSCLoss("unpaired", num_channels=num_channels, **banks)
        unpaired_cac = CACLoss("unpaired", one_sided=self.one_sided, **banks)
        paired_cac = CACLoss("paired", one_sided=self.one_sided)
        self.csc = nn.ModuleDict({"paired": CSCLoss("paired"), "unpaired": unpaired_csc})
        self.cac = nn.ModuleDict({"paired": paired_cac, "unpaired": unpaired_cac})
        self.similarity: dict[str, Similarity] = {}

    def forward(
        self, output: CMCOutput, target: Tensor, pairs: Tensor, positions: Tensor, joint: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Both terms, each the mean over its pairs.

        Args:
            output: of the network for all rows.
            target: ``(N_labeled, 1, D, H, W)``, of the first rows.
            pairs: ``(P, M)``, the row of each modality, or -1; on the CPU, or the host waits for the GPU.
            positions: ``(N, 3, d, h, w)`` relative positions in the body.
            joint: ``(N - N_labeled, K, D, H, W)``, the probabilities that all modalities together predict for the other
                rows, which the one-sided CAC learns from.

        Returns:
            (CSC, CAC), scalars; an exact 0 with a graph where no pair is concerned.
        """
        registered, others = rows_by_form(pairs)
        csc = self._mean("csc", output.features, len(registered), lambda: self._paired_csc(output, registered),
                         len(others) / 2, lambda: self._unpaired_csc(output, target, others))  # fmt: skip
        n_labeled = len(target)
        hidden, apart = registered[registered >= n_labeled], others[others >= n_labeled]
        learned_from = None if joint is None else joint[hidden - n_labeled]
        cac = self._mean("cac", output.logits, len(hidden), lambda: self._paired_cac(output, hidden, learned_from),
                         len(apart) / 2, lambda: self._unpaired_cac(output, apart, positions))  # fmt: skip
        return csc, cac

    def _paired_csc(self, output: CMCOutput, rows: Tensor) -> Tensor:
        return self.csc["paired"](output.features[rows], output.present[rows])

    def _paired_cac(self, output: CMCOutput, rows: Tensor, joint: Tensor | None) -> Tensor:
        return self.cac["paired"](output.logits[rows].softmax(2), output.present[rows], joint=joint)

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

    def _mean(
        self, term: str, inputs: Tensor, n_paired: float, paired: Callable, n_unpaired: float, unpaired: Callable
    ) -> Tensor:
        """Mean of a term over the pairs of both forms; a form of no pair is called only where ranks share banks."""
        forms, shared = getattr(self, term), dist.is_available() and dist.is_initialized()
        counts = {"paired": (n_paired, paired), "unpaired": (n_unpaired, unpaired)}
        losses = {form: (count, loss()) for form, (count, loss) in counts.items() if count or shared}
        unknown = inputs.new_full((1,), torch.nan)
        seen = [forms[form].similarity for form in losses] or [Similarity(unknown, unknown)]
        self.similarity[term] = Similarity(*(torch.stack(each).nanmean() for each in zip(*seen, strict=True)))
        total = sum(count * loss for count, loss in losses.values())
        return total / max(n_paired + n_unpaired, 1) if losses else inputs[:0].sum()


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
