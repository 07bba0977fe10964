"""Combination of the predictions of a sample's modalities: modules called with the logits and the presence."""

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.evidence import LARGEST_DOUBT


class FirstPresent(nn.Module):
    """Take the prediction of the first present modality, where one decoder has made the same one for all."""

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine ``logits (B, M, K, D, H, W)`` of the modalities ``present (B, M)`` into ``(B, K, D, H, W)``.

        The result of a row without any modality is arbitrary.
        """
        weight = first(present)[:, :, None].expand(-1, -1, logits.shape[2]).to(logits.dtype)
        return _weighted_sum(weight, logits)


class ByReliability(nn.Module):
    """Average log-probabilities, weighted by the reliability of each modality for each class.

    Attributes:
        reliability: log-weight ``(M, K)`` of each modality for each class: equal until a trainer sets it.
    """

    reliability: Tensor

    def __init__(self, num_modalities: int, num_classes: int):
        super().__init__()
        self.register_buffer("reliability", torch.zeros(num_modalities, num_classes))

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine as :meth:`FirstPresent.forward`."""
        score = self.reliability.masked_fill(~present[:, :, None], -torch.inf)
        weight = score.softmax(1).nan_to_num(0.0)  # (B, M, K); a row without any modality has no weights
        return _weighted_sum(weight, logits.log_softmax(2))


class Discounting(nn.Module):
    """Combine the evidence of modalities by Dempster's rule, discounted by their learned reliability for each class.

    Contextual discounting as in Huang et al. (MICCAI 2022, arXiv 2206.11739): by modality m, class k has the
    plausibility ``1 - beta_mk + beta_mk pl_m(k)``, and the probability of k is proportional to the product of these
    over the present modalities. The paper needs all modalities; leaving out absent ones is ours.

    Attributes:
        reliability: logit ``(M, K)`` of beta: 0.5 at the start.
    """

    def __init__(self, num_modalities: int, num_classes: int):
        super().__init__()
        self.reliability = nn.Parameter(torch.zeros(num_modalities, num_classes))

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine as :meth:`FirstPresent.forward`, from log-plausibilities into logits of the probability."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        beta = self.reliability.sigmoid() * present[:, :, None]  # (B, M, K); with 0, a modality is a factor of 1
        total = torch.zeros_like(logits[:, 0])
        for m, log_plausibility in enumerate(logits.unbind(1)):
            doubt = beta[:, m, :, None, None, None] * log_plausibility.expm1()
            total = total + doubt.clamp(min=-LARGEST_DOUBT).log1p()
        return total


class CombinedInTraining(nn.Module):
    """Auxiliary output in training: the combination of the modalities' predictions.

    Args:
        combination: the network's own, whose weights, if any, are trained by this output.
    """

    def __init__(self, combination: nn.Module):
        super().__init__()
        self.combination = combination

    def forward(self, x: Tensor, fusion: Tensor, encoded: object, logits: Tensor, present: Tensor) -> tuple[Tensor]:
        """Combine ``logits (B, M, K, D, H, W)`` of the predictions in ``fusion (B, M, M)`` into ``(B, K, D, H, W)``."""
        return (self.combination(logits, fusion.diagonal(dim1=1, dim2=2)),)


def first(present: Tensor) -> Tensor:
    """Mark the first modality of each sample: ``(B, M)`` -> ``(B, M)`` bool."""
    return present & (present.cumsum(1) == 1)


def _weighted_sum(weight: Tensor, logits: Tensor) -> Tensor:
    terms = (weight[:, m, :, None, None, None] * logits[:, m] for m in range(logits.shape[1]))
    total = next(terms)
    for term in terms:
        total = total + term
    return total
