"""The mean teacher, which predicts pseudo-labels of unlabelled patches for the network, its student.

It is a moving average of the student's weights (Tarvainen & Valpola 2017) and gets the weak view of a patch with all
modalities fused; the student gets the strong view, each modality by itself, and trains on the voxels of which the
teacher is confident (FixMatch, Sohn et al. 2020).
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.trainers.moving_average import MovingAverage, momentum_of


@dataclass(frozen=True)
class Teacher:
    """A mean teacher of a recipe.

    Attributes:
        confidence: lowest probability of a predicted class that makes a voxel's pseudo-label.
        momentum: of the average, for each step; None: by the length of the training, see :func:`momentum_of`.
    """

    confidence: float = 0.9
    momentum: float | None = None


class MeanTeacher(MovingAverage):
    """A moving average of the student, which predicts its pseudo-labels.

    Args:
        student: a CMCNet.
        teacher: see :class:`Teacher`.
        iterations: of the training.
    """

    def __init__(self, student: nn.Module, teacher: Teacher, iterations: int):
        super().__init__(student, momentum_of(iterations) if teacher.momentum is None else teacher.momentum)
        self.confidence = teacher.confidence

    @torch.no_grad()
    def pseudo_targets(self, data: Tensor, num_classes: int) -> Tensor:
        """Predict confident labels of ``data (N, M, D, H, W)``: int16 ``(N, 1, D, H, W)``, K where not confident."""
        confidence, label = self(data).softmax(1).max(1, keepdim=True)
        return torch.where(confidence > self.confidence, label, num_classes).to(torch.int16)

    def teach(self, batch: Batch, num_classes: int, asked: bool = True) -> Batch:
        """Return the student's batch: strong views in place of weak ones, and pseudo-labels of the weak ones.

        If not ``asked``, since the weight of their term is 0, no voxel has a pseudo-label.
        """
        assert batch.strong is not None, "a recipe with a teacher has strong views"
        weak = batch.data[batch.n_labeled :]
        if asked and len(weak):
            targets = self.pseudo_targets(weak, num_classes)
        else:
            targets = torch.full_like(weak[:, :1], num_classes, dtype=torch.int16)
        student_sees = torch.cat([batch.data[: batch.n_labeled], batch.strong])
        return replace(batch, data=student_sees, pseudo_targets=targets)
