"""The contrastive base of both consistency losses: from matrices of similarities to one scalar."""

from itertools import combinations
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_cmc.losses.ranks import summed

FORMS = ("printed", "paired", "unpaired")


class Similarity(NamedTuple):
    """Mean similarity of positive and of negative pairs, detached scalars; NaN where there were none."""

    diagonal: Tensor
    off_diagonal: Tensor


class ConsistencyLoss(nn.Module):
    """Compare modalities by similarity matrices ``(n, n)`` whose diagonal holds the positive pairs, one per term.

    Attributes:
        similarity: `Similarity` of the last call, None before the first.
    """

    def __init__(self, form: str, temperature: float):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"{type(self).__name__} has the forms {', '.join(FORMS)}, not {form!r}.")
        if not temperature > 0:
            raise ValueError(f"The temperature of {type(self).__name__} must be above 0, not {temperature}.")
        self.form = form
        self.temperature = temperature
        self.similarity: Similarity | None = None

    def _cross_entropy(self, similarity: Tensor, first: int = 0) -> Tensor:
        """Compute symmetric InfoNCE of ``(..., n, n)`` over the rows and columns from `first` on: ``(...)``."""
        logits = similarity / self.temperature
        found = [logits.log_softmax(axis).diagonal(dim1=-2, dim2=-1)[..., first:].mean(-1) for axis in (-1, -2)]
        return -(found[0] + found[1]) / 2

    def _mean_of_terms(self, inputs: Tensor, terms: list[Tensor], matrices: list[Tensor]) -> Tensor:
        """Average the terms and store the mean similarities, of all ranks; an exact 0 with a graph without any term.

        Args:
            inputs: any tensor of the graph, for its device and type.
            terms: scalars or vectors.
            matrices: for each entry of `terms` its similarities, ``(n, n)`` or one for each entry of a vector.
        """
        with torch.no_grad():
            diagonal = _joined([m.diagonal(dim1=-2, dim2=-1).mean(-1) for m in matrices], inputs)
            off_diagonal = _joined([_off_diagonal_mean(m) for m in matrices], inputs)
            known = [(each.nansum(), (~each.isnan()).sum().to(inputs.dtype)) for each in (diagonal, off_diagonal)]
        values = _joined(terms, inputs)
        # the sum of no element: 0 even where an absent modality holds NaN
        found = values.sum() + inputs[:0].sum(), inputs.new_full((), len(values))
        total, count, partners, n_partners, others, n_others = summed(*found, *known[0], *known[1])
        self.similarity = Similarity((partners / n_partners).detach(), (others / n_others).detach())
        return total / count.clamp(min=1)


def printed(similarities: Tensor) -> Tensor:
    """Compute equations (1) and (3) as printed, ``sum_c -log(exp(s_c) / sum_k exp(s_k))``, of ``(..., n)``.

    Both sums run over positive pairs only, so adding a constant changes nothing: similarities become equal, not high.
    """
    return -similarities.log_softmax(-1).sum(-1)


def modality_pairs(modalities: int) -> list[tuple[int, int]]:
    """List the pairs (a, b), a < b, of so many modalities."""
    return list(combinations(range(modalities), 2))


def full_precision(values: Tensor) -> Tensor:
    """Convert float16 and bfloat16 to float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_present(present: Tensor, inputs: Tensor) -> Tensor:
    """Return ``present`` as bool on the device of ``inputs``. ValueError if their shapes do not fit."""
    if inputs.ndim != 6 or present.shape != inputs.shape[:2]:
        raise ValueError(
            f"Expected values (B, M, channels, D, H, W) with present (B, M), "
            f"not {tuple(inputs.shape)} with {tuple(present.shape)}."
        )
    return present.to(inputs.device, torch.bool)


def _joined(parts: list[Tensor], like: Tensor) -> Tensor:
    return torch.cat([part.reshape(-1) for part in parts]) if parts else like.new_zeros(0)


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    n = matrix.shape[-1]
    return (matrix.sum((-2, -1)) - matrix.diagonal(dim1=-2, dim2=-1).sum(-1)) / (n * (n - 1))
