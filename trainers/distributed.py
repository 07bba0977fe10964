"""Training on several processes: every rank computes the loss of all ranks' rows.

A gradient that flows back through the gathering reaches the rank that made the row, W times (once from each rank's
equal loss); torch's DistributedDataParallel divides by W. So W ranks with a W-th of the batch compute what one process
computes with all of it: Dice over the batch, the negatives of the contrastive losses, and their banks.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.nn.functional import all_gather

from nnunet_cmc.data.loading.batch import ALL, LABELED, PAIRS, SWAPS, UNLABELED, Batch
from nnunet_cmc.networks import CMCOutput

TRANSPORT = {torch.bool: torch.uint8, torch.int16: torch.int32}  # what the backends can send


def of_all_ranks(output: CMCOutput, batch: Batch) -> tuple[CMCOutput, Batch]:
    """Gather network output and batch of all ranks: the labelled rows of all, then the unlabelled ones of all.

    Args:
        output: of this rank's rows, with gradient.
        batch: of this rank, on the device but for numbers of rows; its images stay this rank's own, as no term reads
            them.
    """
    device = output.present.device
    n_swaps = 0 if batch.swaps is None else len(batch.swaps)
    mine = torch.tensor([len(output.present), batch.n_labeled, len(batch.pairs), n_swaps], device=device)
    sizes = [size.tolist() for size in _gathered(mine[None], [1] * dist.get_world_size())]
    rows, labeled, pairs, swaps = zip(*(size[0] for size in sizes), strict=True)
    hidden = [n - k for n, k in zip(rows, labeled, strict=True)]

    def all_rows(x: Tensor) -> Tensor:
        parts = _gathered(x, rows)
        first = [part[:k] for part, k in zip(parts, labeled, strict=True)]
        return torch.cat([*first, *(part[k:] for part, k in zip(parts, labeled, strict=True))])

    def all_numbers(x: Tensor, lengths: tuple[int, ...]) -> Tensor:
        parts = _gathered(x.to(device), lengths)
        return torch.cat(
            [
                _renumbered(part, labeled[rank], sum(labeled[:rank]), sum(labeled) + sum(hidden[:rank]))
                for rank, part in enumerate(parts)
            ]
        ).cpu()

    gather = {
        ALL: all_rows,
        LABELED: lambda x: torch.cat(_gathered(x, labeled)),
        UNLABELED: lambda x: torch.cat(_gathered(x, hidden)),
        PAIRS: lambda x: all_numbers(x, pairs),
        SWAPS: lambda x: all_numbers(x, swaps),
    }
    whole: dict[str, Any] = {
        name: gather[counted](x) for name, counted, x in batch.tensors() if name not in ("data", "strong")
    }
    logits, features, present = (all_rows(part) for part in output[:3])
    deep = tuple(all_rows(part) for part in output.deep)
    auxiliary = {name: tuple(map(all_rows, parts)) for name, parts in output.auxiliary.items()}
    return CMCOutput(logits, features, present, deep, auxiliary), replace(batch, **whole)


def _renumbered(rows: Tensor, labeled: int, before: int, hidden_before: int) -> Tensor:
    """Renumber rows of one rank, -1 for none, as rows of all."""
    moved = torch.where(rows < labeled, rows + before, rows - labeled + hidden_before)
    return torch.where(rows < 0, rows, moved)


def _gathered(x: Tensor, lengths) -> list[Tensor]:
    """Gather ``x`` of every rank, whose first axis has these lengths."""
    longest = max(lengths)
    padded = torch.cat([x, x.new_zeros(longest - len(x), *x.shape[1:])]).to(TRANSPORT.get(x.dtype, x.dtype))
    parts = all_gather(padded.contiguous())
    return [part[:length].to(x.dtype) for part, length in zip(parts, lengths, strict=True)]


def any_rank(condition: bool, device: torch.device) -> bool:
    """Tell whether the condition holds on any rank, which all of them then know."""
    if not (dist.is_available() and dist.is_initialized()):
        return condition
    flag = torch.tensor([float(condition)], device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)
