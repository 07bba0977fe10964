"""What a term of the loss teaches, and whom."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def gradient_norms(term: Tensor, parts: Mapping[str, nn.Module], scale: float = 1.0) -> dict[str, float]:
    """Euclidean norm of the gradient of ``term`` at the parameters of each part; its graph stays, and no ``.grad``.

    Args:
        term: a scalar with a graph.
        parts: modules of the network by name.
        scale: the term is multiplied by it for the backward pass, that small gradients survive float16.
    """
    parameters = {name: [p for p in part.parameters() if p.requires_grad] for name, part in parts.items()}
    flat = [p for of_part in parameters.values() for p in of_part]
    gradients = iter(torch.autograd.grad(term * scale, flat, retain_graph=True, allow_unused=True))
    norms = {}
    for name, of_part in parameters.items():
        squares = [g.float().div(scale).square().sum() for _, g in zip(of_part, gradients) if g is not None]  # noqa: B905
        norms[name] = float(sum(squares)) ** 0.5
    return norms
