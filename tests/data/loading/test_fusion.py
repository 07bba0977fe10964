"""Which modalities of a row are fused with which."""

import pytest
import torch

from nnunet_cmc.data.loading.fusion import FusedAndSingle


@pytest.mark.parametrize("channels", [(0,), (0, 2), (0, 1, 2)])
def test_every_row_is_shown_fused_and_as_one_random_modality(channels):
    drawn = [FusedAndSingle()(channels, 3) for _ in range(30)]
    there = torch.isin(torch.arange(3), torch.tensor(channels))
    singles = set()
    for fusion in drawn:
        assert fusion.diagonal().equal(there), "every modality is in its own set"
        alone = [m for m in channels if fusion[m].sum() == 1]
        others = [m for m in channels if m not in alone]
        assert len(alone) == 1
        assert all(fusion[m].equal(there) for m in others)
        singles |= {*alone}
    assert singles == {*channels}
