"""Gather samples of a batch, and scatter them back, by rows known on the host, without synchronisation with a GPU.

Batches are split by ``unbind``, whose backward pass is one operator; that of ``x[row]`` fills a batch of zeros.
"""

import torch
from torch import Tensor

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
