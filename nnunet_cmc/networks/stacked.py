"""Several modules of one architecture as one computation with stacked weights, which launches fewer GPU kernels."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel


def stacked(modules: Sequence[nn.Module], inputs: Sequence[Tensor]) -> list[list[Tensor]]:
    """Compute ``[module(x) for module, x in zip(modules, inputs)]``, equal except for rounding.

    The weights stay the modules' own, and gradients reach them there. Hooks within the modules are not called.

    Args:
        modules: of one architecture, each returning tensors in a list.
        inputs: of one shape.
    """
    named = [dict(chain(module.named_parameters(), module.named_buffers())) for module in modules]
    weights = {name: torch.stack([each[name] for each in named]) for name in named[0]}

    def call(own: dict[str, Tensor], x: Tensor) -> list[Tensor]:
        # a module that has two names would not get its weights back with tie_weights
        return functional_call(modules[0], own, (x,), tie_weights=False)

    with sdpa_kernel(SDPBackend.MATH):  # no other passes gradients to a bias under vmap
        results = vmap(call)(weights, torch.stack(list(inputs)))
    return [[result[i] for result in results] for i in range(len(modules))]
