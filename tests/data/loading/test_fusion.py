"""Which modalities of a row are fused with which."""

from itertools import chain, combinations

import pytest

from nnunet_cmc.data.loading.fusion import FusedAndPart


@pytest.mark.parametrize("channels", [(0,), (0, 2), (0, 1, 2), (0, 1, 2, 3)])
def test_every_row_is_predicted_from_all_its_modalities_and_from_a_random_part(channels):
    drawn = [FusedAndPart()(channels, 4) for _ in range(400)]
    parts, places = set(), set()
    for fusion in drawn:
        predicted = fusion.diagonal().nonzero().flatten().tolist()
        assert fusion.any(1).nonzero().flatten().tolist() == predicted, "each in the place of a modality of its own"
        sets = {tuple(fusion[m].nonzero().flatten().tolist()): m for m in predicted}
        places.add(sets.pop(channels))
        assert len(sets) == min(len(channels) - 1, 1)
        parts |= sets.keys()
    proper = chain.from_iterable(combinations(channels, size) for size in range(1, len(channels)))
    assert parts == set(proper), "every proper subset"
    assert places == set(channels)
