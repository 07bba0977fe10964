"""What a term of the loss is, and how a recipe names one."""

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
from torch import Tensor, nn

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses import Similarity
from nnunet_cmc.losses.schedules import CONSTANT, Schedule
from nnunet_cmc.networks import CMCOutput


class Setting(NamedTuple):
    """What a term may need to know before the first batch: M, K and C of the network's output, and the plans' Dice."""

    num_modalities: int
    num_classes: int
    num_channels: int
    batch_dice: bool


class LossTerm(nn.Module):
    """One term of the loss. Its state, if it has any, is part of the checkpoint.

    Attributes:
        name: in logs, tables and checkpoints.
        compares: whether the term compares modalities.
        uses_unlabeled: whether unlabelled rows have a part in it.
        needs_registered: why it is undefined without a labelled case of several modalities; empty if it is not.
        progress: the share of the training that is over, at the epoch's start.
        similarity: of the last call of a term that compares: the mean similarity of partners and of others.
    """

    name: ClassVar[str]
    compares: ClassVar[bool] = False
    uses_unlabeled: ClassVar[bool] = True
    needs_registered: ClassVar[str] = ""
    progress: float = 0.0
    similarity: Similarity | None = None

    @abstractmethod
    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term, a scalar with a graph; an exact 0 where the batch has nothing for it."""

    def validated(self, confusion: np.ndarray) -> None:
        """Take note of what each modality predicted alone at an epoch's end: ``(M, K, K)`` voxels by true class."""


@dataclass(frozen=True)
class Term:
    """A term of a recipe.

    Attributes:
        loss: the class.
        weight: over the training.
        form: which form of it, where there are several.
    """

    loss: type[LossTerm]
    weight: Schedule = CONSTANT
    form: str = ""

    @property
    def name(self) -> str:
        """Name of the term in logs, tables and checkpoints."""
        return self.loss.name

    def build(self, setting: Setting) -> LossTerm:
        """Make the term for a training."""
        options = {"form": self.form} if self.form else {}
        return self.loss(setting, **options)
