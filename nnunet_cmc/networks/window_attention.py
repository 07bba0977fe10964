"""Window attention of SAM-Med3D over real tokens only, with the padding of a window folded into a few keys.

The released network pads every window with zero tokens to its full size and attends over the padding too. A padding
token's query, key and value are the biases of the qkv projection, so all padding keys of a window share one content and
one value, and only their position bias differs. Its sum over the padding has a closed form, and attention over the
padded window equals attention over the real tokens plus a few keys whose logits carry the logarithms of such sums.
"""

from itertools import product
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Grid = tuple[int, int, int]
FAR = -1e30  # added to a masked logit: finite, so that its gradient is 0 and not NaN


class Geometry(NamedTuple):
    """Indices into the position tables for a window of ``side``^3 with ``grid`` real tokens.

    Attributes:
        columns: ``(D, H, side, 3 * side)`` int64: where the entries for a query at place p of row (d, h) and the last
            index k of a key are in the three tables, one after the other.
        boxes: ``(side, 2, 3, side)``, 0 or :data:`FAR`: what of the last two terms, at p and k, belongs to each of the
            three boxes that the padding is. None where the grid fills the window.
    """

    columns: Tensor
    boxes: Tensor | None


Geometries = dict[tuple[Grid, int], Geometry]  # by grid and side; those of one forward pass of an encoder


def geometry(grid: Grid, side: int, like: Tensor) -> Geometry:
    """Make the geometry of a window, of the device and dtype of ``like``."""
    D, H, W = grid
    ends, starts = (torch.arange(first, first + side, device=like.device) for first in (side - 1, 0))
    relative = ends[:, None] - starts  # x - k + side - 1
    length = 2 * side - 1
    of_axes = (relative[:D, None, None], relative[None, :H, None] + length, relative + 2 * length)
    columns = torch.cat([part.expand(D, H, side, side) for part in of_axes], -1)
    if grid == (side,) * 3:
        return Geometry(columns, None)
    # the padding: i beyond D; i within D and j beyond H; i within D, j within H and k beyond W
    inside = [[[p >= D, p < D, p < D], [True, p >= H, p < H]] for p in range(side)]
    boxes = [
        [
            [[0.0 if there and (box < 2 or k >= W) else FAR for k in range(side)] for box, there in enumerate(axis)]
            for axis in p
        ]
        for p in inside
    ]
    return Geometry(columns, torch.tensor(boxes, device=like.device, dtype=like.dtype))


def resize_table(table: Tensor, length: int) -> Tensor:
    """Resize a relative position table (L, c) linearly to (length, c)."""
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


def position_terms(q: Tensor, q_pad: Tensor, tables: Tensor, columns: Tensor) -> Tensor:
    """Compute the terms of the position bias (B, heads, D, H, side, 3, side) of queries ``q`` (B, heads, D, H, W, c).

    The bias of query (d, h, w) and key (i, j, k) is, as the released weights were trained with it,
    ``q(d,h,w).Td[d-k+side-1] + q(d,h,i).Th[h-k+side-1] + q(d,h,j).Tw[j-k+side-1]``, in which the terms are indexed
    ``[..., d, h, w, 0, k]``, ``[..., d, h, i, 1, k]`` and ``[..., d, h, j, 2, k]``. (One would expect each axis of the
    key to meet its own table; see SAM-Med3D's issue 101.) Beyond the grid a query is ``q_pad`` (heads, c).

    Every query meets every entry of the three ``tables`` (3 * (2 side - 1), c) in one product, of which the terms are
    gathered.
    """
    B, heads, D, H, W, c = q.shape
    side = columns.shape[2]
    beyond = q_pad[:, None, None, None].expand(B, heads, D, H, side - W, c)
    row = torch.cat([q, beyond], 4) if side > W else q
    return (row @ tables.T).gather(-1, columns.expand(B, heads, -1, -1, -1, -1)).unflatten(-1, (3, side))


def folded_attention(qkv: Tensor, pad: Tensor, tables: Tensor, side: int, geometries: Geometries) -> Tensor:
    """Attend within windows of ``side``^3 tokens of which the first (D, H, W) along each axis are real.

    The padding is three disjoint boxes of keys of one content and value, in each of which the sum of exp(position bias)
    factorises over the key's first two indices. So for each box and last index k it is one key, whose bias is the
    logarithm of that sum; every step is a log-sum-exp of what is there, so nothing cancels.

    ``qkv`` (B, D, H, W, 3, heads, c) of the real tokens, ``pad`` (3, heads, c) of any padding token; D, H, W <= side.
    Returns (B, D, H, W, heads, c).
    """
    B, D, H, W, _, heads, c = qkv.shape
    if ((D, H, W), side) not in geometries:
        geometries[(D, H, W), side] = geometry((D, H, W), side, qkv)
    columns, boxes = geometries[(D, H, W), side]
    parts = qkv.permute(4, 0, 5, 1, 2, 3, 6).split([1, 2])
    q, kv = parts[0].squeeze(0).contiguous(), parts[1].flatten(3, 5)
    q_pad, kv_pad = pad.split([1, 2])
    of_query, of_keys = position_terms(q, q_pad.squeeze(0), tables, columns).split([1, 2], -2)
    r1, (r2, r3) = of_query[:, :, :, :, :W].squeeze(-2), of_keys[:, :, :, :, : max(D, H), :, :W].unbind(-2)
    r23 = r2[:, :, :, :, :D, None] + r3[:, :, :, :, None, :H]  # (B, heads, D, H, D, H, W)
    bias = (r1[..., None, None, :W] + r23[:, :, :, :, None]).flatten(5)
    if boxes is not None:
        of_boxes = (of_keys[..., None, :] + boxes).logsumexp(4).sum(4)  # (B, heads, D, H, 3, side)
        folded = (r1[..., None, :] + of_boxes[:, :, :, :, None]).flatten(5)
        bias = torch.cat([bias, folded], -1)
        kv = torch.cat([kv, kv_pad[:, None, :, None].expand(2, B, heads, 3 * side, c)], 3)
    k, v = kv.flatten(1, 2)
    # fewer operators than scaled_dot_product_attention with a bias that has a gradient
    scores = torch.baddbmm(bias.view(B * heads, D * H * W, -1), q.view(B * heads, -1, c) * c**-0.5, k.transpose(1, 2))
    return (scores.softmax(-1) @ v).view(B, heads, D, H, W, c).permute(0, 2, 3, 4, 1, 5)


def attention_in_windows(
    qkv: Tensor, pad: Tensor, tables: Tensor, side: int, geometries: Geometries | None = None
) -> Tensor:
    """Apply ``folded_attention`` on a grid of any size, cut into windows of ``side``^3 from its origin.

    Along each axis whole windows come first and one that is part padding may follow, so there are at most eight kinds.
    """
    geometries = {} if geometries is None else geometries
    if max(qkv.shape[1:4]) <= side:
        return folded_attention(qkv, pad, tables, side, geometries)
    out = qkv.new_empty(*qkv.shape[:4], *qkv.shape[5:])
    for box in product(*(_parts(length, side) for length in qkv.shape[1:4])):
        part = qkv[(slice(None), *box)]
        d, h, w = (min(side, length) for length in part.shape[1:4])
        windows = part.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, d))
        windows = windows.permute(0, 1, 3, 5, 2, 4, 6, 7, 8, 9)
        result = folded_attention(windows.flatten(0, 3), pad, tables, side, geometries)
        result = result.unflatten(0, windows.shape[:4])
        out[(slice(None), *box)] = result.permute(0, 1, 4, 2, 5, 3, 6, 7, 8).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    return out


def _parts(length: int, side: int) -> list[slice]:
    whole = length - length % side
    return [part for part in (slice(0, whole), slice(whole, length)) if part.start < part.stop]


class WindowAttention(nn.Module):
    """Multi-head self-attention with relative positions on a grid of tokens, ``x (B, D, H, W, C) -> (B, D, H, W, C)``.

    ``window`` is the side of the windows that the grid is cut into from its origin. With ``window=None`` the block is
    global: one window whose side is the grid's longest, the position tables (made for ``table_side``) resized to it.
    Logits and softmax are in float32 at least, under autocast too.
    """

    rel_pos_d: nn.Parameter
    rel_pos_h: nn.Parameter
    rel_pos_w: nn.Parameter

    def __init__(self, dim: int, num_heads: int, window: int | None, table_side: int):
        super().__init__()
        self.num_heads, self.window = num_heads, window
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)
        for axis in "dhw":
            setattr(self, f"rel_pos_{axis}", nn.Parameter(torch.zeros(2 * table_side - 1, dim // num_heads)))
        if window is None:
            self.register_load_state_dict_pre_hook(_fit_tables)

    def forward(self, x: Tensor, geometries: Geometries | None = None) -> Tensor:
        """Attend; blocks that share ``geometries`` compute each of them once."""
        dtype = torch.promote_types(x.dtype, torch.float32)
        side = self.window or max(x.shape[1:4])
        qkv = self.qkv(x).to(dtype).unflatten(-1, (3, self.num_heads, -1))
        pad = self.qkv.bias.to(dtype).view(3, self.num_heads, -1)
        of_axes = (self.rel_pos_d, self.rel_pos_h, self.rel_pos_w)
        fitted = (table if len(table) == 2 * side - 1 else resize_table(table, 2 * side - 1) for table in of_axes)
        with torch.autocast(x.device.type, enabled=False):
            out = attention_in_windows(qkv, pad, torch.cat(list(fitted)).to(dtype), side, geometries)
        return self.proj(out.flatten(4).to(x.dtype))


def _fit_tables(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Resize the tables of a global block in ``state_dict`` to the module's, so that weights of any image size load."""
    for name, own in module.named_parameters(recurse=False):
        table = state_dict.get(prefix + name)
        if table is not None and table.ndim == 2 and len(table) != len(own):
            state_dict[prefix + name] = resize_table(table, len(own))
