"""Window attention of SAM-Med3D over real tokens only, with the padding of a window folded into one key.

The released network pads every window with zero tokens to its full size and attends over the padding too. A padding
token's query, key and value are the biases of the qkv projection, so all padding keys of a window share one content and
one value, and only their position bias differs. Its sum over the padding has a closed form, and attention over the
padded window equals attention over the real tokens plus a single key whose logit carries the logarithm of that sum.
"""

from itertools import product

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Tables = tuple[Tensor, Tensor, Tensor]


def toeplitz(table: Tensor, side: int) -> Tensor:
    """Return the entries ``[i, :, j] = table[i - j + side - 1]`` (side, c, side) of a relative position table (L, c).

    A table of another length than ``2 * side - 1`` is resized linearly first.
    """
    if len(table) != 2 * side - 1:
        table = resize_table(table, 2 * side - 1)
    return table.unfold(0, side, 1).flip(-1)


def resize_table(table: Tensor, length: int) -> Tensor:
    """Resize a relative position table (L, c) linearly to (length, c)."""
    return F.interpolate(table.T[None], size=length, mode="linear", align_corners=False)[0].T


def position_terms(q: Tensor, q_pad: Tensor, tables: Tables, side: int) -> Tables:
    """Compute the three terms of the position bias of queries ``q`` (B, heads, D, H, W, c) in a window of ``side``^3.

    The bias of query (d, h, w) and key (i, j, k) is, as the released weights were trained with it,
    ``q(d,h,w).Td[d-k+side-1] + q(d,h,i).Th[h-k+side-1] + q(d,h,j).Tw[j-k+side-1]``: the terms are indexed
    ``[..., d, h, w, k]``, ``[..., d, h, i, k]`` and ``[..., d, h, j, k]``. (One would expect each axis of the key to
    meet its own table; see SAM-Med3D's issue 101.) Beyond the grid a query is ``q_pad`` (heads, c).
    """
    B, heads, D, H, W, c = q.shape
    row = torch.cat([q, q_pad[None, :, None, None, None].expand(B, heads, D, H, side - W, c)], dim=4)
    td, th, tw = (toeplitz(table, side) for table in tables)
    return (
        torch.einsum("bndhwc,dck->bndhwk", q, td[:D]),
        torch.einsum("bndhic,hck->bndhik", row, th[:H]),
        torch.einsum("bndhjc,jck->bndhjk", row, tw),
    )


def log_padding(terms: Tables, grid: tuple[int, int, int], side: int) -> Tensor | None:
    """Compute the logarithm of the sum of exp(position bias) over all padding keys, for each query (B, heads, D, H, W).

    The padding is three disjoint boxes of keys, in each of which the sum factorises over the key's first two indices;
    every step is a log-sum-exp of what is there, so nothing cancels. None where the grid fills the window.
    """
    D, H, W = grid
    everything = slice(0, side)
    boxes = (
        (slice(D, side), everything, everything),
        (slice(0, D), slice(H, side), everything),
        (slice(0, D), slice(0, H), slice(W, side)),
    )
    r1, r2, r3 = terms
    sums = [
        (r1[..., k] + (r2[..., i, k].logsumexp(-2) + r3[..., j, k].logsumexp(-2)).unsqueeze(-2)).logsumexp(-1)
        for i, j, k in boxes
        if all(part.start < part.stop for part in (i, j, k))
    ]
    return torch.stack(sums).logsumexp(0) if sums else None


def folded_attention(qkv: Tensor, pad: Tensor, tables: Tables, side: int) -> Tensor:
    """Attend within windows of ``side``^3 tokens of which the first (D, H, W) along each axis are real.

    ``qkv`` (B, D, H, W, 3, heads, c) of the real tokens, ``pad`` (3, heads, c) of any padding token; D, H, W <= side.
    Returns (B, D, H, W, heads, c).
    """
    q, k, v = qkv.permute(4, 0, 5, 1, 2, 3, 6)
    B, heads, D, H, W, c = q.shape
    terms = position_terms(q, pad[0], tables, side)
    r1, r2, r3 = (term[..., :W] for term in terms)
    bias = r1[..., None, None, :] + (r2[..., :D, None, :] + r3[..., None, :H, :])[..., None, :, :, :]
    q, k, v = (part.flatten(2, 4) for part in (q, k, v))
    bias = bias.flatten(5).flatten(2, 4)
    padding = log_padding(terms, (D, H, W), side)
    if padding is not None:
        bias = torch.cat([bias, padding.flatten(2)[..., None]], dim=3)
        k_pad, v_pad = pad[1:, None, :, None].expand(2, B, heads, 1, c)
        k, v = torch.cat([k, k_pad], dim=2), torch.cat([v, v_pad], dim=2)
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return out.unflatten(2, (D, H, W)).permute(0, 2, 3, 4, 1, 5)


def attention_in_windows(qkv: Tensor, pad: Tensor, tables: Tables, side: int) -> Tensor:
    """Apply ``folded_attention`` on a grid of any size, cut into windows of ``side``^3 from its origin.

    Along each axis whole windows come first and one that is part padding may follow, so there are at most eight kinds.
    """
    out = qkv.new_empty(*qkv.shape[:4], *qkv.shape[5:])
    for box in product(*(_parts(length, side) for length in qkv.shape[1:4])):
        part = qkv[(slice(None), *box)]
        d, h, w = (min(side, length) for length in part.shape[1:4])
        windows = part.unflatten(3, (-1, w)).unflatten(2, (-1, h)).unflatten(1, (-1, d))
        windows = windows.permute(0, 1, 3, 5, 2, 4, 6, 7, 8, 9)
        result = folded_attention(windows.flatten(0, 3), pad, tables, side).unflatten(0, windows.shape[:4])
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

    def forward(self, x: Tensor) -> Tensor:
        dtype = torch.promote_types(x.dtype, torch.float32)
        qkv = self.qkv(x).to(dtype).unflatten(-1, (3, self.num_heads, -1))
        pad = self.qkv.bias.to(dtype).view(3, self.num_heads, -1)
        tables = (self.rel_pos_d.to(dtype), self.rel_pos_h.to(dtype), self.rel_pos_w.to(dtype))
        with torch.autocast(x.device.type, enabled=False):
            out = attention_in_windows(qkv, pad, tables, self.window or max(x.shape[1:4]))
        return self.proj(out.flatten(4).to(x.dtype))


def _fit_tables(module: nn.Module, state_dict: dict[str, Tensor], prefix: str, *_) -> None:
    """Resize the tables of a global block in ``state_dict`` to the module's, so that weights of any image size load."""
    for name, own in module.named_parameters(recurse=False):
        table = state_dict.get(prefix + name)
        if table is not None and table.ndim == 2 and len(table) != len(own):
            state_dict[prefix + name] = resize_table(table, len(own))
