"""What both consistency losses share: from matrices of similarities to one number."""

from itertools import combinations
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FORMS = ("printed", "paired", "unpaired")


class Similarity(NamedTuple):
    """Mean similarity of partners and of all others, detached scalars; NaN where there were none to compare."""

    diagonal: Tensor
    off_diagonal: Tensor


class ConsistencyLoss(nn.Module):
    """A loss over similarity matrices ``(n, n)`` whose diagonal holds the partners, one matrix a term.

    Attributes:
        similarity: `Similarity` of the last call, None before the first.
    """

    def __init__(self, form: str, temperature: float):
        super().__init__()
        if form not in FORMS:
            raise ValueError(f"{type(self).__name__} knows the forms {', '.join(FORMS)}, not {form!r}.")
        if not temperature > 0:
            raise ValueError(f"The temperature of {type(self).__name__} must be above 0, not {temperature}.")
        self.form = form
        self.temperature = temperature
        self.similarity: Similarity | None = None

    def _cross_entropy(self, similarity: Tensor, first: int = 0) -> Tensor:
        """Symmetric InfoNCE: every row and every column from `first` on has to find its partner among all."""
        logits = similarity / self.temperature
        partners = torch.arange(len(logits), device=logits.device)[first:]
        return (F.cross_entropy(logits[first:], partners) + F.cross_entropy(logits.T[first:], partners)) / 2

    def _finish(self, inputs: Tensor, terms: list[Tensor], matrices: list[Tensor]) -> Tensor:
        """Mean of the terms; an exact 0 that still has a graph when there are none."""
        with torch.no_grad():
            nothing = inputs.new_full((1,), torch.nan)
            diagonal = torch.stack([m.diagonal().mean() for m in matrices]) if matrices else nothing
            off_diagonal = torch.stack([_off_diagonal_mean(m) for m in matrices]) if matrices else nothing
            self.similarity = Similarity(diagonal.nanmean(), off_diagonal.nanmean())
        # the sum of no element: 0 even where an absent modality holds NaN
        return torch.stack(terms).mean() if terms else inputs[:0].sum()


def printed(similarities: Tensor) -> Tensor:
    """Equations (1) and (3) as printed, ``sum_c -log(exp(s_c) / sum_k exp(s_k))`` for similarities ``(n,)``.

    Both sums run over partners only, so a uniform rise changes nothing: it makes similarities equal, not high.
    """
    return -F.log_softmax(similarities, 0).sum()


def modality_pairs(modalities: int) -> list[tuple[int, int]]:
    return list(combinations(range(modalities), 2))


def full_precision(values: Tensor) -> Tensor:
    """float16 and bfloat16 become float32; float32 and float64 stay."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def check_present(present: Tensor, inputs: Tensor) -> Tensor:
    if inputs.ndim != 6 or present.shape != inputs.shape[:2]:
        raise ValueError(
            f"Expected values (B, M, channels, D, H, W) with present (B, M), "
            f"not {tuple(inputs.shape)} with {tuple(present.shape)}."
        )
    return present.to(inputs.device, torch.bool)


def _off_diagonal_mean(matrix: Tensor) -> Tensor:
    n = len(matrix)
    return (matrix.sum() - matrix.diagonal().sum()) / (n * (n - 1))
