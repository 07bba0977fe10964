"""What CACLoss is called with in the tests."""

import torch
from references import GRID

from nnunet_cmc.losses import CACLoss


def make(form, modalities=2, classes=3, **kwargs):
    sizes = {"num_modalities": modalities, "num_classes": classes} if form == "unpaired" else {}
    return CACLoss(form, **sizes, **kwargs)


def random_probabilities(seed=0, shape=(3, 2, 3, 2, 3, 4), sharpness=2.0):
    generator = torch.Generator().manual_seed(seed)
    return (sharpness * torch.randn(shape, generator=generator, dtype=torch.float64)).softmax(2)


def one_hot(labels, classes=3):
    """(B, M, D, H, W) -> (B, M, K, D, H, W)"""
    return torch.nn.functional.one_hot(labels, classes).movedim(-1, 2).double()


def cell_centres(rows=1, modalities=2, size=(2, 3, 4)):
    """Every voxel in a cell of its own, the same in all rows and modalities."""
    axes = [(torch.arange(n, dtype=torch.float64) + 0.5) / GRID for n in size]
    return torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(rows, modalities, 3, *size).clone()


def call(loss, probabilities, present=None, positions=None):
    rows, modalities, _, *size = probabilities.shape
    present = torch.ones(rows, modalities, dtype=torch.bool) if present is None else present
    if loss.form != "unpaired":
        return loss(probabilities, present)
    return loss(probabilities, present, cell_centres(rows, modalities, size) if positions is None else positions)
