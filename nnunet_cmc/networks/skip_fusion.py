"""Fusion above the deepest feature: what one modality shows at full resolution may help another's decoder."""

from torch import Tensor, nn

from nnunet_cmc.networks.rows import put


class Projections(nn.ModuleList):
    """A 1^3 convolution for each of a modality's skips, zero at the start, for which no random number is drawn."""

    def __init__(self, channels: list[int]):
        super().__init__(nn.utils.skip_init(nn.Conv3d, width, width, 1, bias=False) for width in channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        return [project(skip) for project, skip in zip(self, skips, strict=True)]


class SkipFusion(nn.Module):
    """To each skip of a modality, the skips of the others that it is fused with, each through a 1^3 convolution.

    MIA fuses the deepest feature, whose voxels are many millimetres wide; a detail that only the other modality shows
    is lost there. The convolutions start from zero: until scans on one grid have taught them, and where scans are
    never fused, a decoder has its own skips only.

    Args:
        num_modalities: M.
        channels: of the encoders' skips, shallow to deep.
    """

    def __init__(self, num_modalities: int, channels: list[int]):
        super().__init__()
        self.projections = nn.ModuleList(Projections(channels) for _ in range(num_modalities))

    def forward(self, own: list[Tensor], others: dict[int, list[Tensor]], rows: dict[int, list[int]]) -> list[Tensor]:
        """The skips of one modality, ``(B, C, d, h, w)`` each, with what the others add.

        Args:
            own: its skips, shallow to deep.
            others: of each other modality, the same skips ``(n, C, d, h, w)`` of the samples that are fused with it.
            rows: which samples of ``own`` these n are.
        """
        for m, skips in others.items():
            projected = self.projections[m](skips)
            own = [
                mine + put(theirs.to(mine.dtype), rows[m], len(mine))
                for mine, theirs in zip(own, projected, strict=True)
            ]
        return own
