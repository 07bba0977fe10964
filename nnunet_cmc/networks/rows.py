"""Gather samples of a batch, and scatter them back, by rows known on the host, without synchronisation with a GPU.

Batches are split by ``unbind``, whose backward pass is one operator; that of ``x[row]`` fills a batch of zeros.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

Mask = list[list[bool]]  # (B, M)


def rows_of(mask: Mask) -> dict[int, list[int]]:
    """Return the samples of each modality in ascending order, without modalities that no sample has."""
    columns = {m: [b for b, there in enumerate(column) if there] for m, column in enumerate(zip(*mask, strict=True))}
    return {m: rows for m, rows in columns.items() if rows}


def take(x: Tensor, rows: list[int]) -> Tensor:
    """Return ``x[rows]``, or ``x`` itself if these are all of its rows in order."""
    if rows == list(range(len(x))):
        return x
    samples = x.unbind()
    return torch.stack([samples[row] for row in rows])


def put(part: Tensor, rows: list[int], length: int) -> Tensor:
    """Scatter ``part (n, ...)`` to these n different rows of a zero tensor ``(length, ...)``."""
    if rows == list(range(length)):
        return part
    zero = part.new_zeros(part.shape[1:])
    of_row = dict(zip(rows, part.unbind(), strict=True))
    return torch.stack([of_row.get(row, zero) for row in range(length)])


def grid(entries: dict[tuple[int, int], Tensor], like: Tensor) -> Tensor:
    """Put tensors of one shape, by sample and modality, into a zero tensor ``(B, M, ...)``.

    Args:
        like: ``(B, M, ...)``.
    """
    zero = torch.zeros_like(next(iter(entries.values())))
    cells = [entries.get((b, m), zero).to(zero.dtype) for b in range(like.shape[0]) for m in range(like.shape[1])]
    return torch.stack(cells).unflatten(0, like.shape[:2])


def columns(values: Tensor, like: Tensor) -> Tensor:
    """Append axes to ``values``, so that they multiply ``like`` along its first ones, and take its device and type."""
    values = values.to(like.device, like.dtype, non_blocking=True)
    return values[(...,) + (None,) * (like.ndim - values.ndim)]


def is_compiled(module: nn.Module) -> bool:
    """Tell whether a module was compiled in place (``Module.compile``)."""
    return getattr(module, "_compiled_call_impl", None) is not None


def any_number_of_rows(*batches: Tensor) -> None:
    """Let a graph compiled for these tensors be valid for any length of their first axis above 1."""
    from torch._dynamo import maybe_mark_dynamic  # takes a second to import

    for batch in batches:
        maybe_mark_dynamic(batch, 0)


def first_of_two(call: Callable, *inputs):
    """Return the row that ``call`` computes of batches of one row, which it is given twice.

    Torch compiles a graph once more for a batch of one. What was compiled for two rows or more, with
    :func:`any_number_of_rows`, is used so instead.
    """
    return tree_map(lambda batch: batch[:1], call(*tree_map(lambda batch: torch.cat([batch, batch]), inputs)))
