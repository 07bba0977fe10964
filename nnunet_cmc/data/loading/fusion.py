"""Which modalities of a row are fused with which: values that a recipe names, called with the row's channels.

They draw from numpy's global generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class FuseOrSplit:
    """Fuse all modalities of a row or, in a share of the rows, two random groups, each by itself: modality dropout.

    So a missing modality is nothing new to the network.

    Args:
        split: the share.
    """

    split: float = 0.5

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Draw a row of ``fusion``, ``(M, M)`` bool, of a scan with these channels."""
        group = np.zeros(num_modalities, dtype=int)
        if len(channels) > 1 and np.random.uniform() < self.split:
            members = np.random.permutation(channels)
            group[members[: np.random.randint(1, len(channels))]] = 1
        return _together(group, channels)


@dataclass(frozen=True)
class FusedAndSingle:
    """Show every row twice: all its modalities fused, and a random one of them by itself."""

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Draw a row as :meth:`FuseOrSplit.__call__`."""
        fusion = _together(np.zeros(num_modalities, dtype=int), channels)
        if len(channels) > 1:
            single = int(np.random.choice(channels))
            fusion[single] = torch.arange(num_modalities) == single
        return fusion


@dataclass(frozen=True)
class Alone:
    """Show each modality by itself, so that agreement between them is learned and not given."""

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Make a row as :meth:`FuseOrSplit.__call__`."""
        return _together(np.arange(num_modalities), channels)


@dataclass(frozen=True)
class RandomSubset:
    """Fuse a random subset of a row's modalities, every one but the empty one alike, and show no other."""

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Draw a row as :meth:`FuseOrSplit.__call__`."""
        drawn = np.random.randint(1, 2 ** len(channels))  # one bit a modality
        shown = tuple(channel for bit, channel in enumerate(channels) if drawn >> bit & 1)
        return _together(np.zeros(num_modalities, dtype=int), shown)


Fusion = FuseOrSplit | FusedAndSingle | Alone | RandomSubset


def _together(group: np.ndarray, channels: tuple[int, ...]) -> Tensor:
    """Fuse those of ``channels`` that are in the same group."""
    there = np.isin(np.arange(len(group)), channels)
    return torch.from_numpy((group[:, None] == group[None]) & there[:, None] & there[None])
