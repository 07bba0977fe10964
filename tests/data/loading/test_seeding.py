"""What the loaders of a training draw from the three random generators: never twice the same, unless it is seeded."""

import random

import numpy as np
import pytest
import torch
from batchgenerators.dataloading.nondet_multi_threaded_augmenter import NonDetMultiThreadedAugmenter

from nnunet_cmc.data.loading.seeding import SeededLoader


class Draws(SeededLoader):
    """Batches of nothing but a draw from each generator."""

    def __init__(self, seed: int | None = None, rank: int = 0):
        self.seed, self.rank, self.batch_index, self.thread_id, self.infinite = seed, rank, 0, 0, True

    def __next__(self) -> dict:
        return self.generate_train_batch()

    def make_batch(self) -> dict:
        return {
            "who": (self.thread_id, self.batch_index),
            "draws": (torch.rand(1).item(), float(np.random.uniform()), random.random()),
        }


def test_workers_that_are_not_seeded_draw_unlike_numbers():
    augmenter = NonDetMultiThreadedAugmenter(Draws(), None, 3, 6, wait_time=0.001)
    batches = [next(augmenter) for _ in range(60)]
    augmenter._finish()
    assert len({batch["who"][0] for batch in batches}) > 1, "several workers are heard of"
    for generator in zip(*(batch["draws"] for batch in batches), strict=True):
        assert len({*generator}) == 60


def test_ranks_that_are_not_seeded_draw_unlike_numbers_though_torch_begins_alike_in_every_process():
    draws = []
    for rank in (0, 1):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        draws.append(next(Draws(rank=rank))["draws"])
    assert all(one != other for one, other in zip(*draws, strict=True))


def test_seeded_draws_are_those_of_ever():
    """Of results that are published with a seed: another number here makes them irreproducible."""
    loader = Draws(seed=3, rank=1)
    next(loader)
    assert next(loader)["draws"] == pytest.approx((0.374143, 0.229262, 0.499490), abs=1e-6)
