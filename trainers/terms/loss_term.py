"""Base class of the loss terms, and their entries in a recipe."""

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
    """Settings of a training that terms are built with: M, K and C of the network's output, and the kind of Dice."""

    num_modalities: int
    num_classes: int
    num_channels: int
    batch_dice: bool


class LossTerm(nn.Module):
    """One term of the loss. Its state, if it has any, is part of the checkpoint.

    Attributes:
        name: in logs, tables and checkpoints.
        compares: whether the term compares modalities.
        uses_unlabeled: whether the term uses unlabelled rows.
        needs_registered: sentence on why the term is undefined without a labelled case of several modalities; empty if
            it is defined.
        needs_several: sentence on why the term is impossible with a single modality; empty if it is possible.
        progress: fraction of the training that is finished, at the epoch's start.
        similarity: mean similarity of partners and of others in the last call, of a term that compares.
    """

    name: ClassVar[str]
    compares: ClassVar[bool] = False
    uses_unlabeled: ClassVar[bool] = True
    needs_registered: ClassVar[str] = ""
    needs_several: ClassVar[str] = ""
    progress: float = 0.0
    similarity: Similarity | None = None

    @abstractmethod
    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term, a scalar with a graph; an exact 0 where the batch has nothing for it."""

    def validated(self, confusion: np.ndarray) -> None:
        """Record each modality's own predictions at an epoch's end: ``(M, K, K)`` voxels by true and predicted."""


@dataclass(frozen=True)
class Term:
    """A term of a recipe.

    Attributes:
        loss: the class.
        weight: over the training.
        form: of the term, if it has several.
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
