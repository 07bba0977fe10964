"""What the ranks of a distributed training tell each other, so that each computes the loss of all ranks' rows.

Losses are functions of sums over rows, or of small descriptions of rows: these are sent, and no predictions. A gradient
flows back to the rank that has the row from each of the W equal losses, W times; DistributedDataParallel divides by W.
So W ranks with a W-th of the batch compute what one process computes with all of it. Every rank must ask for the same
sums in the same order, of tensors with a graph, if need be of no row.
"""

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import pad


def distributed() -> bool:
    """Tell whether there are ranks."""
    return dist.is_available() and dist.is_initialized()


class _Sum(torch.autograd.Function):
    """The sum over all ranks, whose gradient is the sum of all ranks' gradients."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        total = x.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        return _Sum.apply(gradient.contiguous())


def summed(*parts: Tensor) -> tuple[Tensor, ...]:
    """Sum each tensor over all ranks, with gradient; all go in one message, and have one floating-point type."""
    if not distributed():
        return parts
    message = _Sum.apply(torch.cat([part.reshape(-1) for part in parts]))
    sizes = [part.numel() for part in parts]
    return tuple(total.view_as(part) for total, part in zip(message.split(sizes), parts, strict=True))


def totals(numbers: list[int] | list[float], device: torch.device) -> list[float]:
    """Sum numbers of the host over all ranks."""
    if not distributed():
        return list(numbers)
    total = torch.tensor(numbers, dtype=torch.float64, device=device)
    dist.all_reduce(total)
    return total.tolist()


def any_rank(condition: bool, device: torch.device) -> bool:
    """Tell whether the condition holds on any rank, which all of them then know."""
    return totals([float(condition)], device)[0] > 0


def gathered(*parts: Tensor) -> tuple[Tensor, ...]:
    """Concatenate tensors ``(n, ...)`` of all ranks, each of which may have another n; in one message.

    They travel in the type of the first; floating-point ones have a gradient.
    """
    if not distributed():
        return parts
    here = dist.get_rank()
    lengths = totals([len(parts[0]) if rank == here else 0 for rank in range(dist.get_world_size())], parts[0].device)
    before, after = (int(sum(those)) for those in (lengths[:here], lengths[here + 1 :]))
    alone = [pad(part.to(parts[0].dtype), (*[0, 0] * (part.ndim - 1), before, after)) for part in parts]
    return tuple(whole.to(part.dtype) for whole, part in zip(summed(*alone), parts, strict=True))
