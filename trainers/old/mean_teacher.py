"""Semi-supervision beyond the paper: a mean teacher labels the unlabelled scans for its student.

The teacher is a moving average of the student's weights (Tarvainen & Valpola 2017) and sees the weak view of a scan
with all its modalities fused; the student sees the strong view, each modality by itself, and learns the voxels of which
the teacher is confident (FixMatch, Sohn et al. 2020).
"""

from math import exp

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from nnunet_cmc.data.two_views import TwoViewLoader
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.old.ablations import CMCTrainerNoCAC, CMCTrainerNoCSC
from nnunet_cmc.trainers.old.cmc_trainer import CMCTrainer

CONFIDENT = 0.9  # probability from which a voxel of the teacher's prediction is a label
Tensors = list[Tensor] | tuple[Tensor, ...]
MOMENTUM = 0.99  # of the teacher; before as many updates as that takes, it is the mean of all its students
RISE = 0.4  # share of the training in which the weight of the pseudo-labels rises to 1


def follow(teacher: Tensors, student: Tensors, updates: Tensor | int) -> None:
    """Move ``teacher`` to ``m teacher + (1 - m) student`` with ``m = min(1 - 1 / (t + 1), MOMENTUM)`` after t updates.

    A constant m would keep of the random weights that a training begins with ``m ** t``, for hundreds of iterations.
    """
    torch._foreach_lerp_(teacher, student, max(1 / (int(updates) + 1), 1 - MOMENTUM))


class CMCTrainerMeanTeacher(CMCTrainer):
    """CMCTrainer, and Dice + CE against the confident voxels of a mean teacher's prediction, weighted by ``gamma``.

    The teacher is no part of the network: it lies in the checkpoint under ``teacher_state``, and what predicts is the
    student.
    """

    pair_loader = TwoViewLoader
    terms = (*CMCTrainer.terms, "pseudo")
    weight_of = {**CMCTrainer.weight_of, "pseudo": "gamma"}  # noqa: RUF012

    def initialize(self) -> None:
        """As CMCTrainer's, and the teacher."""
        super().initialize()
        self.teacher = AveragedModel(self.bare_network, multi_avg_fn=follow)
        self.teacher.requires_grad_(False).eval()
        self.pseudo_loss = self.dice_and_ce(ignore_label=self.label_manager.num_segmentation_heads)

    def on_train_start(self) -> None:
        """As CMCTrainer's; a new teacher starts from the student, whose weights are all loaded by now."""
        super().on_train_start()
        if not self.teacher.n_averaged:
            self.teacher.update_parameters(self.bare_network)

    def update(self, batch: dict) -> dict:
        """The student's update from the strong view of unlabelled scans, and the teacher's."""
        n_labeled = len(batch["target"])
        weak = batch["data"][n_labeled:].to(self.device, non_blocking=True)
        labels = self.taught(batch, self.pseudo_labels(weak)) if len(weak) else weak[:, :1]
        student_sees = torch.cat([batch["data"][:n_labeled], batch["strong"]])
        terms = super().update({**batch, "data": student_sees, "pseudo": labels})
        self.teacher.update_parameters(self.bare_network)
        return terms

    def taught(self, batch: dict, labels: Tensor) -> Tensor:
        """What the student learns where the teacher says ``labels``, ``(N_unlabeled, 1, D, H, W)`` int16: just this."""
        return labels

    @torch.no_grad()
    def pseudo_labels(self, data: Tensor) -> Tensor:
        """Labels that the teacher is confident of, ``(N, M, D, H, W)`` -> int16 ``(N, 1, D, H, W)``, elsewhere K."""
        with self._precision():
            confidence, label = self.teacher(data).softmax(1).max(1, keepdim=True)
        return torch.where(confidence > CONFIDENT, label, self.pseudo_loss.ignore_label).to(torch.int16)

    def loss_terms(self, output: CMCOutput, batch: dict) -> dict[str, Tensor]:
        """CMCTrainer's terms, and ``pseudo``."""
        hidden = slice(len(batch["target"]), None)
        decoded = output.present[hidden]
        pseudo = self.per_modality(self.pseudo_loss, output.logits[hidden], decoded, batch["pseudo"])
        return {**super().loss_terms(output, batch), "pseudo": pseudo}

    def consistency_weights(self) -> dict[str, float]:
        """CMCTrainer's, and ``gamma``, which rises to 1 as in the mean teacher's paper."""
        moment = min(1.0, self.current_epoch / max(1.0, RISE * self.num_epochs))
        return {**super().consistency_weights(), "gamma": exp(-5 * (1 - moment) ** 2)}

    def own_state(self) -> dict:
        """CMCTrainer's, and the teacher."""
        return {**super().own_state(), "teacher_state": self.teacher.state_dict()}

    def load_own_state(self, checkpoint: dict) -> None:
        """Take back what :meth:`own_state` gave."""
        super().load_own_state(checkpoint)
        self.teacher.load_state_dict(checkpoint["teacher_state"])


class MeanTeacherTrainer(CMCTrainerMeanTeacher, CMCTrainerNoCSC, CMCTrainerNoCAC):
    """The mean teacher alone, on the same network and batches."""
