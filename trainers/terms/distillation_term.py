"""UMMKD's distillation between modalities, by their mean predictions for each class."""

from itertools import combinations

import torch
from torch import Tensor
from torch.nn.functional import kl_div

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.contrast import full_precision
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting

TEMPERATURE = 2.0  # the paper's


class Distillation(LossTerm):
    """Symmetric KL divergence between the modalities' mean predictions for each class, over the labelled rows.

    From Dou et al., "Unpaired multi-modal segmentation via knowledge distillation", IEEE TMI 39(7), 2020: for class k
    of modality m the mean of the logits over the voxels labelled k, softmax at T = 2; between two modalities
    ``(KL(a | b) + KL(b | a)) / 2``, and the mean over the classes, background included. It needs no voxel
    correspondence. Re-implemented from the description; the factor 1/2 and the background are as in the authors' public
    code. Ours: classes that a batch shows in only one of the two are left out; the mean over pairs of modalities.
    """

    name, uses_unlabeled = "distillation", False
    needs_several = "with one modality shown there is no other to compare its predictions with"

    def __init__(self, setting: Setting):
        super().__init__()

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the term; an exact 0 with a graph where no two modalities show a class in common."""
        labeled = slice(batch.n_labeled)
        decoded = batch.predicted[labeled] & output.present[labeled]
        with torch.autocast(output.logits.device.type, enabled=False):
            means, shown = class_means(full_precision(output.logits[labeled]), decoded, batch.target)
            profiles = (means / TEMPERATURE).log_softmax(-1)
            found = [
                symmetric_kl(profiles[a, common], profiles[b, common]).mean()
                for a, b in combinations(range(len(profiles)), 2)
                if (common := shown[a] & shown[b]).any()
            ]
        return torch.stack(found).mean() if found else output.logits[:0].sum()


def class_means(logits: Tensor, decoded: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean logits ``(M, K, K)`` over the voxels of each class, and which classes ``(M, K)`` have any.

    Of the rows of all ranks.

    Args:
        logits: ``(N, M, K, D, H, W)``.
        decoded: ``(N, M)`` bool; others are not read.
        target: ``(N, 1 or M, D, H, W)``, for all modalities or for each.
    """
    num_modalities, num_classes = logits.shape[1:3]
    sums = logits.new_zeros(num_modalities, num_classes, num_classes)
    counts = logits.new_zeros(num_modalities, num_classes)
    labels = target.expand(-1, num_modalities, -1, -1, -1).flatten(2)[..., None]
    classes = torch.arange(num_classes, device=logits.device)
    for m in range(num_modalities):
        rows = decoded[:, m]
        of_class = (labels[rows, m] == classes).to(logits.dtype)  # (n, voxels, K)
        sums[m] = torch.einsum("nvk,nlv->kl", of_class, logits[rows, m].flatten(2))
        counts[m] = of_class.sum((0, 1))
    sums, counts = summed(sums, counts)
    return sums / counts.clamp(min=1)[..., None], counts > 0


def symmetric_kl(p: Tensor, q: Tensor) -> Tensor:
    """Compute ``(KL(p | q) + KL(q | p)) / 2`` of log-probabilities ``(..., K)``: ``(...)``."""
    there, back = (kl_div(b, a, reduction="none", log_target=True).sum(-1) for a, b in ((p, q), (q, p)))
    return (there + back) / 2
