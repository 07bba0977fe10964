"""Modality-independent awareness (MIA): attention per modality, and fusion over the present modalities."""

import math
from functools import reduce

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.blocks import conv_block
from nnunet_cmc.networks.rows import columns, put, rows_of, take


class MIA(nn.Module):
    """Modality-aware attention and fusion of any non-empty subset of modalities.

    With all M modalities present this is the modality-aware module of Zhang et al. 2021 ("Modality-aware mutual
    learning"), which CMC cites: ``F = conv(cat_m F_m)``, ``A_m = sigmoid(conv(act(norm(conv(cat[F_m, F])))))``, and the
    fused feature ``sum_m A_m * F_m``. A convolution of a concatenation is a sum of convolutions, so for a subset the
    sums run over its members and are scaled by ``M / |subset|``: the content of an absent channel has no effect.

    Args:
        num_modalities: M.
        channels: C, of every modality's feature.
        from_mean: whether attention is initialised so that the fused feature is the mean of the present ones.
    """

    def __init__(self, num_modalities: int, channels: int, from_mean: bool = False):
        super().__init__()
        hidden = max(8, channels // 8)  # of F and within A_m: attention needs fewer channels than features
        self.projections = nn.ModuleList(
            nn.Conv3d(channels, hidden, 3, padding=1, bias=False) for _ in range(num_modalities)
        )
        self.bias = nn.Parameter(torch.zeros(hidden))
        self.attentions = nn.ModuleList(
            nn.Sequential(conv_block(channels + hidden, hidden), nn.Conv3d(hidden, channels, 3, padding=1))
            for _ in range(num_modalities)
        )
        if from_mean:  # sigmoid(-log(M - 1)) is 1 / M
            for attention in self.attentions:
                *_, last = attention.children()
                for parameter, start in zip(last.parameters(), (0.0, -math.log(num_modalities - 1)), strict=True):
                    nn.init.constant_(parameter, start)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse the present modalities' features.

        Args:
            features: ``(B, M, C, d, h, w)``.
            present: ``(B, M)`` bool, at least one per row; on the CPU, to avoid a synchronisation with the GPU.

        Returns:
            The fused feature ``(B, C, d, h, w)``.
        """
        scale = columns(present.shape[1] / present.sum(1), features[:, 0])
        of_each = features.unbind(1)
        common = self.bias[None, :, None, None, None] + scale * _sum_over_present(
            lambda m, rows: self.projections[m](take(of_each[m], rows)), features, present
        )

        def attended(m: int, rows: list[int]) -> Tensor:
            own = take(of_each[m], rows)
            return own * self.attentions[m](torch.cat([own, take(common, rows)], 1)).sigmoid()

        return scale * _sum_over_present(attended, features, present)


class MeanFusion(nn.Module):
    """Mean over the present modalities, in place of MIA."""

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse as :meth:`MIA.forward`."""
        of_each = features.unbind(1)
        total = _sum_over_present(lambda m, rows: take(of_each[m], rows), features, present)
        return total / columns(present.sum(1), total)


def _sum_over_present(term, features: Tensor, present: Tensor) -> Tensor:
    """Compute ``sum_m term(m, rows that have m)``, ``(B, ..., d, h, w)``; a modality of no row is skipped."""
    rows = rows_of(present.tolist())
    terms = [put(term(m, of_m).to(features.dtype), of_m, len(features)) for m, of_m in rows.items()]
    return reduce(torch.add, terms)
