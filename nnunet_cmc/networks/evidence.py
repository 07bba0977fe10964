"""The evidence of one modality about each voxel's class: prototypes, and Dempster's rule in closed form."""

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

LARGEST_DOUBT = 1 - 1e-6  # of log(1 - doubt), whose gradient is infinite at 1


class EvidentialHead(nn.Module):
    """Map a decoder's outputs to log-plausibilities of the classes, by distances to learned prototypes.

    Re-implemented from the description in Huang et al., "Evidence fusion with contextual discounting for multi-modality
    medical image segmentation" (MICCAI 2022, arXiv 2206.11739). The K outputs of a voxel are its features f. Each of I
    prototypes pi_i has a mass function over the classes, given f::

        s_i = alpha_i exp(-gamma_i |f - pi_i|^2),    m_i({k}) = u_ik s_i,    m_i(Omega) = 1 - s_i,    sum_k u_ik = 1

    and Dempster's rule combines them. Their focal sets are the classes and Omega, so that with
    ``q_k = prod_i (1 - s_i + u_ik s_i)`` and ``q_Omega = prod_i (1 - s_i)`` the combination has the plausibility

        pl(k) = q_k / (sum_l (q_l - q_Omega) + q_Omega).

    Its logarithm serves as logits in nnU-Net's losses and inference: their softmax is pl(k) / sum_l pl(l), the
    normalised plausibility. Features, masses and rule are the paper's. Ours: everything is computed by logarithms; the
    memberships u are a softmax; and prototype i is initialised to class i mod K, near the unit vector of that class,
    where the paper draws prototypes and memberships at random: so from the start an output of the decoder has the same
    meaning as in nnU-Net.

    The prototypes are computed one by one, and in training again in the backward pass: memory is that of a single
    prototype, at the cost of computing this head twice.

    Args:
        num_classes: K.
        prototypes: I.
    """

    def __init__(self, num_classes: int, prototypes: int):
        super().__init__()
        own_class = torch.eye(num_classes)[torch.arange(prototypes) % num_classes]  # (I, K)
        self.prototypes = nn.Parameter(2 * own_class + 0.5 * torch.randn(prototypes, num_classes))
        self.memberships = nn.Parameter(4 * own_class)  # u, before their softmax
        self.supports = nn.Parameter(torch.zeros(prototypes))  # alpha, before its sigmoid
        self.widths = nn.Parameter(torch.full((prototypes,), 0.1))  # gamma is the square

    def forward(self, features: Tensor) -> Tensor:
        """Compute log pl ``(B, K, D, H, W)`` of ``features (B, K, D, H, W)``; float32 under autocast, too."""
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        supports, gammas = self.supports.sigmoid(), self.widths.square()
        doubts = torch.cat([1 - self.memberships.softmax(1), torch.ones_like(supports)[:, None]], 1)  # of k, of Omega
        total = torch.zeros_like(features[:, :1])
        for of_one in zip(self.prototypes, supports, gammas, doubts, strict=True):
            if torch.is_grad_enabled():
                part = checkpoint(_log_evidence, features, *of_one, use_reentrant=False, preserve_rng_state=False)
            else:
                part = _log_evidence(features, *of_one)
            total = total + part
        classes, omega = total[:, :-1], total[:, -1:]
        most = classes.amax(1, keepdim=True).detach()  # no less than omega
        classes, omega = classes - most, (omega - most).exp()
        return classes - ((classes.exp() - omega).sum(1, keepdim=True) + omega).log()


def _log_evidence(features: Tensor, prototype: Tensor, support: Tensor, gamma: Tensor, doubt: Tensor) -> Tensor:
    """Compute log(1 - s + u_k s) of each class, and log(1 - s) of Omega: ``(B, K + 1, D, H, W)``."""
    distance = (features - prototype[:, None, None, None]).square().sum(1, keepdim=True)
    support = support * (-gamma * distance).exp()
    return torch.log1p(-(support * doubt[:, None, None, None]).clamp(max=LARGEST_DOUBT))
