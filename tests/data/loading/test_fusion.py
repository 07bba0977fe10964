"""Which modalities of a row are fused with which."""

import pytest
import torch

from nnunet_cmc.data.loading.fusion import FusedAndSingle


@pytest.mark.parametrize("channels", [(0,), (0, 2), (0, 1, 2)])
def test_every_row_is_shown_fused_and_as_one_random_modality(channels):
    there = torch.isin(torch.arange(3), torch.tensor(channels))
    singles, stand_for_all = set(), set()
    for _ in range(60):
        fusion = FusedAndSingle()(channels, 3)
        predicted = fusion.diagonal().nonzero().flatten().tolist()
        assert fusion.any(1).nonzero().flatten().tolist() == predicted
        alone = [m for m in predicted if fusion[m].sum() == 1]
        fused = [m for m in predicted if m not in alone]
        assert (len(alone), len(fused)) == (1, min(len(channels) - 1, 1)), "each once, of however many modalities"
        assert all(fusion[m].equal(there) for m in fused)
        singles |= {*alone}
        stand_for_all |= {*fused}
    assert singles == {*channels}
    assert stand_for_all == ({*channels} if len(channels) > 1 else set())
