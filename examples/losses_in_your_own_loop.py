"""The losses CSC and CAC in a PyTorch loop and a network of one's own: python examples/losses_in_your_own_loop.py"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nnunet_cmc import CACLoss, CSCLoss
from nnunet_cmc.dataset_conversion.phantom import CLASSES, MODALITIES, phantom


def block(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv3d(channels_in, channels_out, 3, stride, padding=1)
    return nn.Sequential(convolution, nn.InstanceNorm3d(channels_out, affine=True), nn.LeakyReLU())


class Network(nn.Module):
    """An encoder of each modality, and a decoder that they share."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders = nn.ModuleList(nn.Sequential(block(1, 8, 2), block(8, 16, 2)) for _ in MODALITIES)
        self.decoder = nn.Sequential(nn.Upsample(scale_factor=4), block(16, 8, 1), nn.Conv3d(8, len(CLASSES) + 1, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map ``x (B, M, D, H, W)`` to features ``(B, M, C, d, h, w)`` and logits ``(B, M, K, D, H, W)``."""
        features = [encoder(x[:, m : m + 1]) for m, encoder in enumerate(self.encoders)]
        return torch.stack(features, 1), torch.stack([self.decoder(one) for one in features], 1)


def main(iterations: int = 20) -> list[dict[str, float]]:
    """Return the terms of the loss at every iteration."""
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    subjects = [phantom(rng, size=(24, 24, 32), spacing=(6.0, 6.0, 6.0)) for _ in range(4)]
    volumes = np.stack([np.stack([scans[m] for m in MODALITIES]) for _, scans in subjects]).astype(np.float32)
    x = torch.from_numpy(volumes)  # (B, M, D, H, W)
    x = (x - x.mean((2, 3, 4), keepdim=True)) / x.std((2, 3, 4), keepdim=True)
    labels = torch.from_numpy(np.stack([label for label, _ in subjects[:2]])).long()  # the others are unlabelled
    present = torch.ones(x.shape[:2], dtype=torch.bool)  # every subject has both modalities

    network, csc, cac = Network(), CSCLoss("paired"), CACLoss("paired")  # "unpaired": scans of different patients
    optimizer = torch.optim.AdamW(network.parameters(), 1e-2)
    history = []
    for iteration in range(iterations):
        features, logits = network(x)
        supervised = torch.stack([F.cross_entropy(logits[:2, m], labels) for m in range(len(MODALITIES))]).mean()
        unlabeled = logits[2:].softmax(2)
        terms = {"supervised": supervised, "CSC": csc(features, present), "CAC": cac(unlabeled, present[2:])}
        optimizer.zero_grad()
        (terms["supervised"] + 0.1 * terms["CSC"] + 0.1 * terms["CAC"]).backward()
        optimizer.step()
        history.append({name: term.item() for name, term in terms.items()})
        print(iteration, *(f"{name} {value:.4f}" for name, value in history[-1].items()), sep="  ")
    return history


if __name__ == "__main__":
    main()
