"""Training on several processes: every rank computes the loss of all ranks' rows.

A gradient that flows back through the gathering reaches the rank that made the row, W times (once from each rank's
equal loss); torch's DistributedDataParallel divides by W. So W ranks with a W-th of the batch compute what one process
computes with all of it: Dice over the batch, the negatives of the contrastive losses, and their banks.
"""

import torch
import torch.distributed as dist
from torch import Tensor

from nnunet_cmc.networks import CMCOutput

ROWS = ("fusion", "positions")  # entries of a batch with an entry for every row, beside the network's output
HIDDEN = ("pseudo", "joint")  # for every unlabelled row
TRANSPORT = {torch.bool: torch.uint8, torch.int16: torch.int32}  # what the backends can send


def of_all_ranks(output: CMCOutput, batch: dict) -> tuple[CMCOutput, dict]:
    """Network output and batch of all ranks: the labelled rows of all, then the unlabelled ones of all.

    Args:
        output: of this rank's rows, with gradient.
        batch: of PairLoader, on the device but for ``pairs``, with or without :data:`HIDDEN`; its ``data`` is left out
            of the result.
    """
    mine = torch.tensor([len(output.present), len(batch["target"]), len(batch["pairs"])], device=output.present.device)
    sizes = [size.tolist() for size in _gathered(mine[None], [1] * dist.get_world_size())]
    rows, labeled, pairs = zip(*(size[0] for size in sizes), strict=True)
    hidden = [n - k for n, k in zip(rows, labeled, strict=True)]

    def all_rows(x: Tensor) -> Tensor:
        parts = _gathered(x, rows)
        first = [part[:k] for part, k in zip(parts, labeled, strict=True)]
        return torch.cat([*first, *(part[k:] for part, k in zip(parts, labeled, strict=True))])

    whole = {key: all_rows(batch[key]) for key in ROWS}
    whole["target"] = torch.cat(_gathered(batch["target"], labeled))
    whole |= {key: torch.cat(_gathered(batch[key], hidden)) for key in HIDDEN if key in batch}
    whole["pairs"] = torch.cat(
        [
            _renumbered(part, labeled[rank], sum(labeled[:rank]), sum(labeled) + sum(hidden[:rank]))
            for rank, part in enumerate(_gathered(batch["pairs"].to(mine.device), pairs))
        ]
    ).cpu()
    logits, features, present = (all_rows(part) for part in output[:3])
    return CMCOutput(logits, features, present, tuple(all_rows(part) for part in output.deep)), whole


def _renumbered(pairs: Tensor, labeled: int, before: int, hidden_before: int) -> Tensor:
    """Rows of one rank, -1 for none, as rows of all."""
    moved = torch.where(pairs < labeled, pairs + before, pairs - labeled + hidden_before)
    return torch.where(pairs < 0, pairs, moved)


def _gathered(x: Tensor, lengths) -> list[Tensor]:
    """``x`` of every rank, whose first axis has these lengths."""
    longest = max(lengths)
    padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]).to(TRANSPORT.get(x.dtype, x.dtype))
    parts = _Gather.apply(padded)
    return [part[:length].to(x.dtype) for part, length in zip(parts, lengths, strict=True)]


class _Gather(torch.autograd.Function):
    """``x`` of all ranks ``(W, *x.shape)``, which has the same shape on each; gradients of all of them flow back."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.stack(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        total = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total[dist.get_rank()]


def any_rank(condition: bool, device: torch.device) -> bool:
    """Whether the condition holds on any rank, which all of them then know."""
    if not (dist.is_available() and dist.is_initialized()):
        return condition
    flag = torch.tensor([float(condition)], device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)
