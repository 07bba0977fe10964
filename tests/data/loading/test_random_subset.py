"""Every non-empty subset of a row's modalities is shown as often as any other."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from nnunet_cmc.data.loading.fusion import RandomSubset


@pytest.mark.parametrize("channels", [(1,), (0, 2), (0, 1, 3)])
def test_every_subset_is_equally_likely_and_fused_as_one(channels):
    np.random.seed(0)
    counts = Counter()
    for _ in range(100 * 2 ** len(channels)):
        fusion = RandomSubset()(channels, 4)
        shown = fusion.diagonal()
        assert fusion.equal(shown[:, None] & shown), "all that is shown is fused, and nothing else is predicted from"
        counts[tuple(shown.nonzero().flatten().tolist())] += 1
    subsets = {tuple(c for c, there in zip(channels, bits, strict=True) if there)
               for bits in product([0, 1], repeat=len(channels))} - {()}  # fmt: skip
    assert counts.keys() == subsets
    assert len(subsets) == 1 or chisquare(list(counts.values())).pvalue > 0.01


def test_it_follows_numpy_s_generator():
    drawn = []
    for _ in range(2):
        np.random.seed(3)
        drawn.append(torch.stack([RandomSubset()((0, 1, 2), 3) for _ in range(10)]))
    assert drawn[0].equal(drawn[1])
