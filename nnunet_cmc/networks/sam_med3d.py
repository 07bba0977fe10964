"""SAM-Med3D's image encoder: a 3-D ViT with windowed and global attention (registry name ``vit_b_ori``)."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nnunet_cmc.networks.adapter import Adapter
from nnunet_cmc.networks.window_attention import Geometries, WindowAttention


class PatchEmbed(nn.Module):
    """Embed non-overlapping patches as tokens: (B, 1, D, H, W) -> (B, D / patch, H / patch, W / patch, C)."""

    def __init__(self, patch_size: int, embed_dim: int):
        super().__init__()
        self.proj = nn.Conv3d(1, embed_dim, patch_size, stride=patch_size)

    def forward(self, x: Tensor) -> Tensor:
        return self.proj(x).permute(0, 2, 3, 4, 1)


class MLP(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.lin1 = nn.Linear(dim, hidden)
        self.lin2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.lin2(F.gelu(self.lin1(x)))


class Block(nn.Module):
    """Pre-norm transformer block on (B, D, H, W, C), with an optional adapter beside the MLP."""

    def __init__(self, dim: int, num_heads: int, mlp_ratio: float, window: int | None, table_side: int, adapter: bool):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=1e-6)
        self.attn = WindowAttention(dim, num_heads, window, table_side)
        self.norm2 = nn.LayerNorm(dim, eps=1e-6)
        self.mlp = MLP(dim, int(dim * mlp_ratio))
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.adapter = Adapter(dim) if adapter else None  # after the loop: it has an initialisation of its own

    def forward(self, x: Tensor, geometries: Geometries) -> Tensor:
        x = x + self.attn(self.norm1(x), geometries)
        y = self.norm2(x)
        x = x + self.mlp(y)
        return x if self.adapter is None else x + self.adapter(y)


class ChannelNorm(nn.LayerNorm):
    """LayerNorm over the channels of (B, C, D, H, W)."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class SamMed3DEncoder(nn.Module):
    """The image encoder of SAM-Med3D, numerically equal to what the released weights were trained with.

    ``forward(x (B, 1, D, H, W))`` returns feature maps (B, C, D, H, W) / patch_size, shallow to deep and in x's axis
    order: the output of every global block but the last block, then the neck's. ``channels`` and ``strides`` describe
    them. Sides must be multiples of ``patch_size``; where the grid of tokens is not ``image_size``'s, the positions are
    resized to it. A grid that is not a cube is, for a global block, one window of its longest side.

    The released weights were trained on axes (x, y, z): ``axis_order="xyz"`` takes such input; ``"zyx"`` takes
    nnU-Net's arrays and turns the axes on the way in and out, so that the pretrained positions keep their meaning.
    Those weights expect 1.5 mm isotropic voxels, z-normalised with mean and unbiased std over the voxels > 0.

    Names and shapes of the parameters, adapters apart, are those of the official ``image_encoder``. ``load_state_dict``
    resizes the position embedding, and the position tables of global blocks, of weights made for another image size.
    """

    def __init__(
        self,
        image_size: int,
        patch_size: int = 16,
        embed_dim: int = 768,
        depth: int = 12,
        num_heads: int = 12,
        mlp_ratio: float = 4.0,
        out_channels: int = 384,
        window_size: int = 14,
        global_blocks: Sequence[int] = (2, 5, 8, 11),
        axis_order: str = "zyx",
        adapters: bool = False,
    ):
        super().__init__()
        if image_size % patch_size:
            raise ValueError(f"image_size {image_size} is not a multiple of the encoder's patch_size {patch_size}.")
        if embed_dim % num_heads:
            raise ValueError(f"embed_dim {embed_dim} is not a multiple of num_heads {num_heads}.")
        if not set(global_blocks) <= set(range(depth)):
            raise ValueError(f"global_blocks {list(global_blocks)} are not all among the encoder's {depth} blocks.")
        if axis_order not in ("zyx", "xyz"):
            raise ValueError(f"axis_order is {axis_order!r}; it must be 'zyx' (nnU-Net's arrays) or 'xyz'.")
        self.patch_size, self.axis_order = patch_size, axis_order
        self.taps = [index for index in sorted(global_blocks) if index < depth - 1]
        self.channels = [embed_dim] * len(self.taps) + [out_channels]
        self.strides = [patch_size] * len(self.channels)

        grid = image_size // patch_size
        self.patch_embed = PatchEmbed(patch_size, embed_dim)
        self.pos_embed = nn.Parameter(torch.empty(1, grid, grid, grid, embed_dim))
        nn.init.trunc_normal_(self.pos_embed, std=0.02)
        windows = [None if index in global_blocks else window_size for index in range(depth)]
        self.blocks = nn.ModuleList(
            Block(embed_dim, num_heads, mlp_ratio, window, window or grid, adapters) for window in windows
        )
        self.neck = nn.Sequential(
            nn.Conv3d(embed_dim, out_channels, 1, bias=False),
            ChannelNorm(out_channels, eps=1e-6),
            nn.Conv3d(out_channels, out_channels, 3, padding=1, bias=False),
            ChannelNorm(out_channels, eps=1e-6),
        )
        self.register_load_state_dict_pre_hook(_fit_positions)

    def stem(self, x: Tensor) -> Tensor:
        """Embed ``x`` as tokens ``(B, D, H, W, C)`` in the ViT's axis order."""
        if x.ndim != 5 or x.shape[1] != 1 or any(side % self.patch_size for side in x.shape[2:]):
            raise ValueError(
                f"The SAM-Med3D encoder takes (B, 1, D, H, W) with sides that are multiples of {self.patch_size}, "
                f"not {tuple(x.shape)}."
            )
        return self.patch_embed(self._turn(x))

    def forward(self, x: Tensor, from_stem: bool = False) -> list[Tensor]:
        x = x if from_stem else self.stem(x)
        x = x + resize_positions(self.pos_embed, x.shape[1:4])
        maps = []
        geometries: Geometries = {}
        for index, block in enumerate(self.blocks):
            x = block(x, geometries)
            if index in self.taps:
                maps.append(x.movedim(-1, 1))
        project = cast(nn.Conv3d, self.neck[0])
        x = F.linear(x, project.weight.flatten(1)).movedim(-1, 1)  # whose gradient has the tokens' order in memory
        maps.append(cast(nn.Sequential, self.neck[1:])(x))
        return [self._turn(features) for features in maps]

    def _turn(self, x: Tensor) -> Tensor:
        return x.transpose(2, 4) if self.axis_order == "zyx" else x


def resize_positions(pos_embed: Tensor, grid: Sequence[int]) -> Tensor:
    """Resize a position embedding (1, d, h, w, C) trilinearly to (1, *grid, C)."""
    if tuple(pos_embed.shape[1:4]) == tuple(grid):
        return pos_embed
    resized = F.interpolate(pos_embed.movedim(-1, 1), size=tuple(grid), mode="trilinear", align_corners=False)
    return resized.movedim(1, -1)


def _fit_positions(module: SamMed3DEncoder, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    positions = state_dict.get(prefix + "pos_embed")
    if positions is not None and positions.ndim == 5:
        state_dict[prefix + "pos_embed"] = resize_positions(positions, module.pos_embed.shape[1:4])
