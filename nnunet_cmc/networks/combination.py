"""Combination of a sample's predictions from its modalities: modules called with the logits and the presence.

Each tells by ``asked`` which sets of modalities the network decodes for it.
"""

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.evidence import LARGEST_DOUBT


class ByReliability(nn.Module):
    """Average log-probabilities, weighted by the reliability of each modality for each class.

    Args:
        fuses: whether the prediction m is from all present modalities, by the decoder of m, or from m alone.

    Attributes:
        reliability: log-weight ``(M, K)`` of each modality for each class: equal until a trainer sets it.
    """

    reliability: Tensor

    def __init__(self, num_modalities: int, num_classes: int, fuses: bool = False):
        super().__init__()
        self.fuses = fuses
        self.register_buffer("reliability", torch.zeros(num_modalities, num_classes))

    def asked(self, present: Tensor) -> Tensor:
        """Return the modalities that are fused for each of P predictions: ``(B, M)`` -> ``(B, P, M)`` bool."""
        return together(present) if self.fuses else alone(present)

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine ``logits (B, P, K, D, H, W)`` of the modalities ``present (B, M)`` into ``(B, K, D, H, W)``.

        The result of a row without any modality is arbitrary.
        """
        score = self.reliability.masked_fill(~present[:, :, None], -torch.inf)
        weight = score.softmax(1).nan_to_num(0.0)  # (B, M, K); a row without any modality has no weights
        return _weighted_sum(weight, logits.log_softmax(2))


class FusedBesideAlone(ByReliability):
    """Take the prediction from all present modalities fused or, once reliabilities are set, both kinds of prediction.

    Then the result is the mean of the log-probabilities from all modalities fused and of the average of those from
    each alone, by reliability: a decoder that has seen no fused features in training predicts from them worse than
    from the better modality alone.
    """

    def asked(self, present: Tensor) -> Tensor:
        """Return sets as :meth:`ByReliability.asked`: P is 1, or M + 1 with all modalities at the end."""
        fused = present[:, None]
        return torch.cat([alone(present), fused], 1) if self.reliability.any() else fused

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine as :meth:`ByReliability.forward`."""
        fused = logits[:, -1]
        if logits.shape[1] == 1:
            return fused
        return (fused.log_softmax(1) + super().forward(logits[:, :-1], present)) / 2


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

    def asked(self, present: Tensor) -> Tensor:
        """Return sets as :meth:`ByReliability.asked`, of single modalities."""
        return alone(present)

    def forward(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine as :meth:`ByReliability.forward`, from log-plausibilities into logits of the probability."""
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


def together(present: Tensor) -> Tensor:
    """Return all present modalities for the prediction of each of them: ``(B, M)`` -> ``(B, M, M)`` bool."""
    return present[:, None] & present[:, :, None]


def alone(present: Tensor) -> Tensor:
    """Return each present modality for its own prediction: ``(B, M)`` -> ``(B, M, M)`` bool."""
    return torch.diag_embed(present)


def _weighted_sum(weight: Tensor, logits: Tensor) -> Tensor:
    terms = (weight[:, m, :, None, None, None] * logits[:, m] for m in range(logits.shape[1]))
    total = next(terms)
    for term in terms:
        total = total + term
    return total
