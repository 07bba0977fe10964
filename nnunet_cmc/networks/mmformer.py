"""mmFormer (Zhang et al., MICCAI 2022, arXiv 2206.02425): fusion of modalities by transformers.

Re-implemented from its description. From the paper: a convolutional encoder for each modality; tokens of each
modality's deepest map with learned positions; a transformer within each modality, and one over the tokens of all
present modalities; one decoder of masked concatenations with deep supervision; a second decoder, shared by all
modalities, that predicts from each modality alone; training on random subsets of the modalities.

Ours: encoders and decoders are those of the plans; a key mask leaves absent modalities out of the attention (tokens of
zeros in the authors' code). Simplified: a 1^3 convolution of each masked concatenation, in place of modules that weight
the regions of classes; classes have equal weights in the loss, resolutions those of nnU-Net, and a prediction from
several modalities counts for each of them; there is no dropout, so that a resumed training is the same to the bit.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.rows import put, rows_of, take
from nnunet_cmc.networks.sam_med3d import resize_positions


class MaskedConcatenation(nn.Module):
    """A 1^3 convolution of the concatenated maps of all modalities, in which absent ones are zero.

    Computed as a sum of convolutions of the present modalities, so that absent ones cost nothing.

    Args:
        num_modalities: M.
        channels: of each modality's map.
        out_channels: of the result.
    """

    def __init__(self, num_modalities: int, channels: int, out_channels: int):
        super().__init__()
        self.projections = nn.ModuleList(
            nn.Conv3d(channels, out_channels, 1, bias=False) for _ in range(num_modalities)
        )
        for weight in self.parameters():  # He et al. 2015, for all M * C channels
            nn.init.normal_(weight, std=(2 / (num_modalities * channels)) ** 0.5)

    def forward(self, maps: Mapping[int, Tensor], rows: Mapping[int, list[int]], length: int) -> Tensor:
        """Compute ``(length, out_channels, d, h, w)``.

        Args:
            maps: ``(n, C, d, h, w)`` of each modality that any row has.
            rows: which rows of the result these n are.
        """
        return reduce(torch.add, (put(self.projections[m](part), rows[m], length) for m, part in maps.items()))


class ConcatenatedSkips(nn.ModuleList):
    """A :class:`MaskedConcatenation` at every resolution, for the skips of a shared decoder.

    Args:
        num_modalities: M.
        channels: of the encoders' skips, shallow to deep.
    """

    def __init__(self, num_modalities: int, channels: Sequence[int]):
        super().__init__(MaskedConcatenation(num_modalities, width, width) for width in channels)

    def forward(
        self, skips: Mapping[int, Sequence[Tensor]], rows: Mapping[int, list[int]], length: int
    ) -> list[Tensor]:
        """Fuse the skips of each modality, shallow to deep, as :meth:`MaskedConcatenation.forward`."""
        return [fuse({m: maps[level] for m, maps in skips.items()}, rows, length) for level, fuse in enumerate(self)]


class IntraModalTransformer(nn.Module):
    """Tokens of one modality: a 1^3 convolution and learned positions, then a transformer over the whole patch.

    Args:
        channels: C of the modality's map.
        grid: (d, h, w), its size at the planned patch.
        width, heads, mlp: see :class:`MMFormerFusion`.
    """

    def __init__(self, channels: int, grid: Sequence[int], width: int, heads: int, mlp: int):
        super().__init__()
        self.embedding = nn.Conv3d(channels, width, 1)
        self.positions = nn.Parameter(torch.zeros(1, *grid, width))
        self.transformer = _transformer(width, heads, mlp)

    def positions_of(self, grid: Sequence[int]) -> Tensor:
        """Return the positions of a grid, ``(1, P, width)``, resized if it is not the planned one."""
        return resize_positions(self.positions, grid).flatten(1, 3)

    def forward(self, features: Tensor) -> Tensor:
        """Compute tokens ``(n, P, width)`` of ``features (n, C, d, h, w)``, P = d h w."""
        tokens = self.embedding(features).flatten(2).transpose(1, 2)
        return self.transformer(tokens + self.positions_of(features.shape[2:]))


class MMFormerFusion(nn.Module):
    """Fuse the deepest maps by a transformer within each modality, and one over the tokens of all present modalities.

    Args:
        num_modalities: M.
        channels: C of the maps, and of the result.
        grid: (d, h, w), their size at the planned patch.
        width: of a token; a multiple of ``heads``.
        heads: of the attention.
        mlp: hidden width of the transformers' MLP.
    """

    def __init__(self, num_modalities: int, channels: int, grid: Sequence[int], width: int, heads: int, mlp: int):
        super().__init__()
        self.intra = nn.ModuleList(
            IntraModalTransformer(channels, grid, width, heads, mlp) for _ in range(num_modalities)
        )
        self.inter = _transformer(width, heads, mlp)
        self.concatenation = MaskedConcatenation(num_modalities, width, channels)

    def forward(self, features: Tensor, present: Tensor) -> Tensor:
        """Fuse as :meth:`MIA.forward`."""
        rows, batch, grid = rows_of(present.tolist()), len(features), features.shape[3:]
        own = {m: self.intra[m](take(features[:, m], of_m)) for m, of_m in rows.items()}
        tokens = torch.stack([put(own[m], of_m, batch) for m, of_m in rows.items()], 1)  # (B, M', P, width)
        positions = torch.cat([cast(IntraModalTransformer, self.intra[m]).positions_of(grid) for m in rows], 1)
        there = present[:, list(rows)].repeat_interleave(tokens.shape[2], 1)
        absent = None if there.all() else ~there.to(features.device, non_blocking=True)
        mixed = self.inter(tokens.flatten(1, 2) + positions, src_key_padding_mask=absent)
        mixed = mixed.unflatten(1, tokens.shape[1:3]).transpose(2, 3).unflatten(3, grid)  # (B, M', width, d, h, w)
        maps = {m: take(mixed[:, i], of_m) for i, (m, of_m) in enumerate(rows.items())}
        return self.concatenation(maps, rows, batch)


def _transformer(width: int, heads: int, mlp: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, heads, mlp, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
