"""Semantic consistency of UMML between the predictions of a scan and of its restyled copy."""

from torch import Tensor
from torch.nn.functional import kl_div

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.losses.ranks import summed
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting


class SemanticConsistency(LossTerm):
    """``KL(S_a(x) || S_b(T_ab x))`` between the predictions of a scan x and of its copy in the style of b.

    S_a and S_b predict modalities a and b, and both get gradients (UMML, Zhu et al., MICCAI 2021). The mean over voxels
    and over the swaps of labelled and unlabelled scans, in both directions, a to b and b to a, as in the paper's sum.
    T is :class:`SwapStyles` in place of the paper's learned translators.
    """

    name = "semantic"

    def __init__(self, setting: Setting):
        super().__init__()

    def forward(self, output: CMCOutput, batch: Batch) -> Tensor:
        """Compute the mean over the swaps; an exact 0 with a graph where there is none."""
        assert batch.swaps is not None, "a recipe with this term swaps styles"
        (row, copy), (own, other) = batch.swaps.amax(2).T, batch.swaps.argmax(2).T
        scan, restyled = (output.logits[r, m].float().log_softmax(1) for r, m in ((row, own), (copy, other)))
        divergence = kl_div(restyled, scan, reduction="none", log_target=True).sum(1).flatten(1).mean(1)
        predicted = (output.present[row, own] & output.present[copy, other]).to(divergence.dtype)
        total, count = summed((divergence * predicted).sum(), predicted.sum())
        return total / count.clamp(min=1)
