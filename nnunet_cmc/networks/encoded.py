"""The encoders' feature maps of a batch, in which each sample has some of the modalities."""

from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from nnunet_cmc.networks.rows import take


@dataclass(frozen=True)
class Encoded:
    """Feature maps, shallow to deep: those of modality m in sample b are the rows ``row[b, m]`` of ``maps[m]``."""

    maps: dict[int, list[Tensor]]
    row: dict[tuple[int, int], int]

    @cached_property
    def _samples(self) -> dict[int, list[tuple[Tensor, ...]]]:
        return {m: [level.unbind() for level in levels] for m, levels in self.maps.items()}

    def of(self, b: int, m: int) -> list[Tensor]:
        """Return the maps ``(C, d, h, w)`` of one sample."""
        return [level[self.row[b, m]] for level in self._samples[m]]

    def take(self, m: int, samples: list[int]) -> list[Tensor]:
        """Return the maps ``(n, C, d, h, w)`` of these samples."""
        return [take(level, [self.row[b, m] for b in samples]) for level in self.maps[m]]
