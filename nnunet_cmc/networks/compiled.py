"""Modules compiled by torch, for any number of rows in a batch."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map


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
