"""Fusion of skips: high-resolution features of one modality for the decoder of another."""

from torch import Tensor, nn

from nnunet_cmc.networks.rows import put


class Projections(nn.ModuleList):
    """A 1^3 convolution for each of a modality's skips, initialised to zero without drawing a random number."""

    def __init__(self, channels: list[int]):
        super().__init__(nn.utils.skip_init(nn.Conv3d, width, width, 1, bias=False) for width in channels)
        for parameter in self.parameters():
            nn.init.zeros_(parameter)

    def forward(self, skips: list[Tensor]) -> list[Tensor]:
        return [project(skip) for project, skip in zip(self, skips, strict=True)]


class SkipFusion(nn.Module):
    """Add to each skip of a modality those of the modalities fused with it, each through a 1^3 convolution.

    MIA fuses the deepest feature, whose voxels are many millimetres wide; a detail that only another modality shows
    is lost there. The convolutions are initialised to zero: before training on registered scans, and where scans are
    never fused, a decoder uses its own skips only.

    Args:
        num_modalities: M.
        channels: of the encoders' skips, shallow to deep.
    """

    def __init__(self, num_modalities: int, channels: list[int]):
        super().__init__()
        self.projections = nn.ModuleList(Projections(channels) for _ in range(num_modalities))

    def forward(self, own: list[Tensor], others: dict[int, list[Tensor]], rows: dict[int, list[int]]) -> list[Tensor]:
        """Return the skips of one modality, ``(B, C, d, h, w)`` each, with those of the others added.

        Args:
            own: its skips, shallow to deep.
            others: the same skips ``(n, C, d, h, w)`` of each other modality, of the samples fused with it.
            rows: which samples of ``own`` these n are.
        """
        for m, skips in others.items():
            projected = self.projections[m](skips)
            own = [
                mine + put(theirs.to(mine.dtype), rows[m], len(mine))
                for mine, theirs in zip(own, projected, strict=True)
            ]
        return own
