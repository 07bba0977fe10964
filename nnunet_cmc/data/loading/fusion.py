"""Choices of the modalities of a row that are fused: values that a recipe names, called with the row's channels.

They draw from numpy's global generator.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class FuseOrSplit:
    """Fuse all modalities of a row or, in a share of the rows, two random groups separately: modality dropout.

    So the network is trained on missing modalities.

    Args:
        split: the share of rows.
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
class FusedAndPart:
    """Predict every row twice: from all its modalities fused, and from a random part of them fused.

    The part has one modality or more, all numbers equally likely; of two modalities it is a single one. Each prediction
    takes the place of a random modality of its own, so that of three or more some have none.
    """

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Draw a row as :meth:`FuseOrSplit.__call__`."""
        together = _together(np.zeros(num_modalities, dtype=int), channels)
        if len(channels) < 2:
            return together
        drawn = np.random.permutation(channels)
        size = np.random.randint(1, len(channels))
        part, others = drawn[:size], drawn[size:]
        fusion = torch.zeros_like(together)
        fusion[np.random.choice(others)] = together[others[0]]
        fusion[np.random.choice(part), torch.from_numpy(part)] = True
        return fusion


@dataclass(frozen=True)
class Alone:
    """Predict from each modality alone, so that agreement between them is not trivial."""

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Make a row as :meth:`FuseOrSplit.__call__`."""
        return _together(np.arange(num_modalities), channels)


@dataclass(frozen=True)
class RandomSubset:
    """Fuse a random non-empty subset of a row's modalities, all equally likely, and leave out the others."""

    def __call__(self, channels: tuple[int, ...], num_modalities: int) -> Tensor:
        """Draw a row as :meth:`FuseOrSplit.__call__`."""
        drawn = np.random.randint(1, 2 ** len(channels))  # one bit a modality
        shown = tuple(channel for bit, channel in enumerate(channels) if drawn >> bit & 1)
        return _together(np.zeros(num_modalities, dtype=int), shown)


Fusion = FuseOrSplit | FusedAndPart | Alone | RandomSubset


def _together(group: np.ndarray, channels: tuple[int, ...]) -> Tensor:
    """Fuse those of ``channels`` that are in the same group."""
    there = np.isin(np.arange(len(group)), channels)
    return torch.from_numpy((group[:, None] == group[None]) & there[:, None] & there[None])
