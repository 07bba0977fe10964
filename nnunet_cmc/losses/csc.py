"""Channel-wise semantic consistency (CSC): channels of the encoders are aligned between modalities."""

import torch
import torch.nn.functional as F
from torch import Tensor

from nnunet_cmc.losses.banks import MovingAverageBank
from nnunet_cmc.losses.contrast import ConsistencyLoss, check_present, full_precision, modality_pairs, printed
from nnunet_cmc.losses.ranks import summed

POOLED = 8  # voxels per axis on which the channels of registered pairs are compared
EPS = 1e-6  # added to squared norms, so that constant channels have similarity 0 and a finite gradient


class CSCLoss(ConsistencyLoss):
    """Compute CSC between every two modalities (Zhou et al., MICCAI 2024, equation 1), in one of three forms.

    * ``printed``: equation (1) exactly as printed, per case, summed over channels, for reference. It does not align:
      see `printed`.
    * ``paired``, for registered cases: symmetric cross-entropy per case over the cosines of all channels of one
      modality, centred over space, with all channels of the other; the same channel is the positive pair.
    * ``unpaired``, for cases that share no grid: the same over class prototypes, the weighted means of the features
      per modality and class. Background is a prototype like any other, and the only negative of a single
      foreground class. A bank of moving averages stands in for classes that the batch lacks.
      The bank is updated in training mode only.

    The loss is the mean over the cases' (``unpaired``: the batch's) pairs of present modalities, of all ranks: see
    `ranks.py`.

    Args:
        form: ``printed``, ``paired`` or ``unpaired``.
        temperature: divides the similarities; ``printed`` has none.
        num_modalities, num_classes, num_channels: the bank's size, background a class; for ``unpaired`` only.
        momentum: the bank's.

    Raises:
        ValueError: unknown form, temperature not above 0, ``unpaired`` without the bank's size.
    """

    def __init__(
        self,
        form: str,
        temperature: float = 0.1,
        *,
        num_modalities: int | None = None,
        num_classes: int | None = None,
        num_channels: int | None = None,
        momentum: float = 0.99,
    ):
        super().__init__(form, temperature)
        if form == "unpaired":
            if num_modalities is None or num_classes is None or num_channels is None:
                raise ValueError("The bank of unpaired CSCLoss needs num_modalities, num_classes and num_channels.")
            self.prototypes = MovingAverageBank((num_modalities, num_classes), (num_channels,), momentum)

    def forward(self, features: Tensor, present: Tensor, class_weights: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            features: ``(B, M, C, d, h, w)``, any float type; float16 and bfloat16 are compared in float32.
            present: ``(B, M)`` bool; what an absent modality holds is never read.
            class_weights: ``(B, M, K, d, h, w)``, non-negative weight of every class, constant; ``unpaired`` only.

        Returns:
            A scalar; an exact 0 with a graph where nothing can be compared.

        Raises:
            ValueError: shapes that do not fit, class weights missing or not applicable to the form.
        """
        present = check_present(present, features)
        with torch.autocast(features.device.type, enabled=False):
            features = full_precision(features)
            if self.form == "unpaired":
                matrices = self._class_similarities(features, present, class_weights)
            elif class_weights is not None:
                raise ValueError(f"class_weights belong to the unpaired form of CSCLoss, not to {self.form!r}.")
            else:
                matrices = self._channel_similarities(features, present)
            if self.form == "printed":
                terms = [printed(s.diagonal(dim1=-2, dim2=-1)) for s in matrices]
            else:
                terms = [self._cross_entropy(s) for s in matrices]
            return self._mean_of_terms(features, terms, matrices)

    def _channel_similarities(self, features: Tensor, present: Tensor) -> list[Tensor]:
        """Compute for each pair of modalities the similarities ``(n, C, C)`` of the n cases that have both."""
        shown = present.tolist()
        pairs = [
            (a, b, [i for i, row in enumerate(shown) if row[a] and row[b]]) for a, b in modality_pairs(present.shape[1])
        ]
        return [cosine(*(self._profile(features[rows, m]) for m in (a, b))) for a, b, rows in pairs if rows]

    def _profile(self, channels: Tensor) -> Tensor:
        """Flatten ``(n, C, d, h, w)`` to ``(n, C, voxels)``, for registered cases centred and pooled."""
        if self.form == "paired":
            channels = channels - channels.mean((2, 3, 4), keepdim=True)
            depth, height, width = (min(size, POOLED) for size in channels.shape[2:])
            channels = F.adaptive_avg_pool3d(channels, (depth, height, width))
        return channels.flatten(2)

    def _class_similarities(self, features: Tensor, present: Tensor, class_weights: Tensor | None) -> list[Tensor]:
        """Compute one matrix per pair of modalities, over the classes known in both."""
        modalities, classes, channels = self.prototypes.value.shape
        if class_weights is None:
            raise ValueError("The unpaired CSCLoss needs class_weights (B, M, K, d, h, w).")
        expected = (*features.shape[:2], classes, *features.shape[3:])
        if features.shape[1:3] != (modalities, channels) or class_weights.shape != expected:
            raise ValueError(
                f"CSCLoss was built for M={modalities}, K={classes}, C={channels} and got features "
                f"{tuple(features.shape)} with class_weights {tuple(class_weights.shape)}."
            )
        mask = present[:, :, None, None]
        values = torch.where(mask, features.flatten(3), 0)
        shares = torch.where(mask, class_weights.detach().to(features.dtype).flatten(3), 0)
        of_rank = torch.einsum("bmkv,bmcv->mkc", shares, values), shares.sum((0, 3)), present.sum(0).to(values.dtype)
        totals, weights, rows = summed(*of_rank)
        prototypes, known = self.prototypes.complete(totals, weights)
        if self.training:
            self.prototypes.update(totals, weights)

        matrices = []
        in_batch = (rows > 0).tolist()
        for a, b in modality_pairs(modalities):
            common = known[a] & known[b]
            if (in_batch[a] or in_batch[b]) and common.sum() > 1:  # a single class has no negatives
                matrices.append(cosine(prototypes[a, common], prototypes[b, common]))
        return matrices


def cosine(a: Tensor, b: Tensor) -> Tensor:
    """Compute the cosine of every row of a ``(..., n, v)`` with every row of b ``(..., n, v)``: ``(..., n, n)``."""
    a, b = (x * torch.rsqrt(x.square().sum(-1, keepdim=True) + EPS) for x in (a, b))
    return a @ b.mT
