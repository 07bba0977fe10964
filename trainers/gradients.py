"""Norms of the gradient of a loss term at each part of the network."""

from collections.abc import Mapping

import torch
import torch.distributed as dist
from torch import Tensor, nn

from nnunet_cmc.losses.ranks import distributed


def gradient_norms(term: Tensor, parts: Mapping[str, nn.Module], scale: float = 1.0) -> dict[str, float]:
    """Compute the Euclidean norm of ``term``'s gradient at each part's parameters, over all ranks; keep its graph.

    Args:
        term: a scalar with a graph.
        parts: modules of the network by name.
        scale: factor of the term in the backward pass, so that small gradients survive float16.
    """
    parameters = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    flat = list(dict.fromkeys(p for of_part in parameters.values() for p in of_part))  # in the same order on all ranks
    gradients = torch.autograd.grad(term * scale, flat, retain_graph=True, materialize_grads=True, allow_unused=True)
    ranks = dist.get_world_size() if distributed() else 1
    squares = {}
    for parameter, gradient in zip(flat, gradients, strict=True):
        if ranks > 1:
            dist.all_reduce(gradient)
        squares[parameter] = gradient.float().div(scale * ranks).square().sum()
    return {name: float(sum(squares[p] for p in of_part)) ** 0.5 for name, of_part in parameters.items()}
