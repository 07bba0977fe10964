"""Batches that depend on a seed and their number in the run, not on earlier draws."""

import os
import random
import secrets
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader

from nnunet_cmc.utils.parallel import end_with_parent


@contextmanager
def seeded(*entropy: int) -> Iterator[None]:
    """Start numpy's, torch's (CPU) and Python's global generators from ``entropy``, and restore them afterwards.

    nnU-Net's augmentation draws from all three, so a batch made inside is a pure function of ``entropy``.
    """
    numpy_state, python_state = np.random.get_state(), random.getstate()
    first, second, third = (int(word) for word in np.random.SeedSequence(entropy).generate_state(3))
    with torch.random.fork_rng(devices=[]):
        np.random.seed(first)
        torch.default_generator.manual_seed(second)
        random.seed(third)
        try:
            yield
        finally:
            np.random.set_state(numpy_state)
            random.setstate(python_state)


class SeededLoader(nnUNetDataLoader):
    """nnU-Net's data loader whose i-th batch, given a seed, is a pure function of seed, rank, worker and i.

    Args:
        args, kwargs: nnUNetDataLoader's.
        seed: None draws one for every process that makes batches; nnU-Net seeds only numpy there, so that all workers
            and ranks draw the same mirroring and transforms from torch.
        rank: of this process in a distributed training.
        first_batch: i of the first batch, when a training resumes.
    """

    def __init__(self, *args, seed: int | None = None, rank: int = 0, first_batch: int = 0, **kwargs):
        super().__init__(*args, **kwargs)
        self.seed = seed
        self.rank = rank
        self.batch_index = first_batch

    def set_thread_id(self, thread_id: int) -> None:
        """Record the worker's number, as nnU-Net's workers do first."""
        super().set_thread_id(thread_id)
        end_with_parent()

    def generate_train_batch(self) -> dict:
        """Make the next batch."""
        index, self.batch_index = self.batch_index, self.batch_index + 1
        if self.seed is None:
            self.seed = secrets.randbits(64)  # the operating system's, whatever was seeded or forked
        with seeded(self.seed, self.rank, self.thread_id, index):
            return self.make_batch()

    def make_batch(self) -> dict:
        """Draw a batch with the global random generators."""
        return super().generate_train_batch()


def seed_from_environment() -> int | None:
    """Read ``NNUNET_CMC_SEED``, or None where it is not set. ValueError if it is not a whole number."""
    value = os.environ.get("NNUNET_CMC_SEED")
    if value is None:
        return None
    if not value.isdecimal():
        raise ValueError(f"The environment variable NNUNET_CMC_SEED is {value!r}; it must be a whole number, or unset.")
    return int(value)
