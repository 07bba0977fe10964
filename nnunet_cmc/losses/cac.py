"""Contrastive anatomical consistency (CAC): predictions of unlabelled scans are aligned between modalities."""

import torch
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool3d

from nnunet_cmc.losses.banks import MovingAverageBank
from nnunet_cmc.losses.contrast import ConsistencyLoss, check_present, full_precision, modality_pairs, printed
from nnunet_cmc.losses.ranks import gathered, summed

GRID = 16  # cells per axis of the body box, and of a patch whose case is compared with others
OCCUPIED = 0.01  # a class that fills less than this of every cell counts as absent
EPS = 1e-6


class CACLoss(ConsistencyLoss):
    """Compute CAC between every two modalities (Zhou et al., MICCAI 2024, equation 3), in one of three forms.

    * ``printed``: equation (3) exactly as printed, over the batch's cases, for reference. It does not align (see
      `printed`) and is 0 for a batch of one.
    * ``paired``, for registered cases: symmetric cross-entropy over the soft Dice of all predictions of one modality
      with all of the other, as means over the cells of a 16 x 16 x 16 grid (patches of so few voxels: as they are),
      with the same case as positive pair, plus one minus the cases' mean Dice voxel by voxel. The Dice is the mean over
      the foreground classes that either prediction shows, i.e. puts above chance (1 / K) somewhere; cases of which
      neither modality shows a class are left out.
    * ``unpaired``, for cases that share no grid: a class's occupancy of the body box, on a 16 x 16 x 16 grid, is
      compared with those of all classes of the other modality by soft Dice; symmetric cross-entropy over the
      foreground classes present in both. Background is a negative (the only one of a single foreground class) but has
      no term of its own. A bank of moving averages stands in for cells that the batch does not visit.
      The bank is updated in training mode only.

    The loss is the mean over the pairs of present modalities, and of the rows of all ranks: see `ranks.py`.

    Args:
        form: ``printed``, ``paired`` or ``unpaired``.
        temperature: divides the similarities; ``printed`` has none.
        dice: whether ``paired`` has its second part, one minus the mean Dice, or the cross-entropy alone.
        num_modalities, num_classes: the bank's size, background a class; for ``unpaired`` only.
        momentum: the bank's.

    Raises:
        ValueError: unknown form, temperature not above 0, ``unpaired`` without the bank's size.
    """

    def __init__(
        self,
        form: str,
        temperature: float = 0.1,
        *,
        dice: bool = True,
        num_modalities: int | None = None,
        num_classes: int | None = None,
        momentum: float = 0.99,
    ):
        super().__init__(form, temperature)
        self.dice = dice
        if form == "unpaired":
            if num_modalities is None or num_classes is None:
                raise ValueError("The bank of unpaired CACLoss needs num_modalities and num_classes.")
            self.occupancy = MovingAverageBank((num_modalities, num_classes, GRID, GRID, GRID), momentum=momentum)

    def forward(self, probabilities: Tensor, present: Tensor, positions: Tensor | None = None) -> Tensor:
        """Compute the loss.

        Args:
            probabilities: ``(B, M, K, D, H, W)``, softmax over K with background first; float16 and bfloat16 are
                compared in float32.
            present: ``(B, M)`` bool; what an absent modality holds is never read.
            positions: ``(B, M, 3, D, H, W)``, every voxel's place along D, H, W in the body box, from 0 to 1; voxels
                with a coordinate outside or NaN are ignored; ``unpaired`` only.

        Returns:
            A scalar; an exact 0 with a graph where nothing can be compared.

        Raises:
            ValueError: shapes that do not fit, positions missing or not applicable to the form.
        """
        present = check_present(present, probabilities)
        if positions is not None and self.form != "unpaired":
            raise ValueError(f"positions belong to the unpaired form of CACLoss, not to {self.form!r}.")
        with torch.autocast(probabilities.device.type, enabled=False):
            probabilities = full_precision(probabilities)
            if self.form == "unpaired":
                terms, matrices = self._compare_occupancy(probabilities, present, positions)
            else:
                terms, matrices = self._compare_cases(probabilities, present)
            return self._mean_of_terms(probabilities, terms, matrices)

    def _compare_cases(self, probabilities: Tensor, present: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        terms, matrices = [], []
        for a, b in modality_pairs(present.shape[1]):
            both = present[:, a] & present[:, b]
            partners, similarity, shown = case_similarities(probabilities[both, a], probabilities[both, b])
            if self.form == "paired":
                partners, similarity = partners[shown], similarity[shown][:, shown]
            if len(similarity) == 0:
                continue
            matrices.append(similarity)
            if self.form == "printed":
                terms.append(printed(partners))
            else:
                disagreement = 1 - partners.mean() if self.dice else 0
                terms.append(self._cross_entropy(similarity) + disagreement)
        return terms, matrices

    def _compare_occupancy(
        self, probabilities: Tensor, present: Tensor, positions: Tensor | None
    ) -> tuple[list[Tensor], list[Tensor]]:
        modalities, classes = self.occupancy.value.shape[:2]
        if positions is None:
            raise ValueError("The unpaired CACLoss needs positions (B, M, 3, D, H, W).")
        expected = (*probabilities.shape[:2], 3, *probabilities.shape[3:])
        if probabilities.shape[1:3] != (modalities, classes) or positions.shape != expected:
            raise ValueError(
                f"CACLoss was built for M={modalities}, K={classes} and got probabilities "
                f"{tuple(probabilities.shape)} with positions {tuple(positions.shape)}."
            )
        values = probabilities.flatten(3).permute(1, 2, 0, 3).flatten(2)  # (M, K, B * voxels)
        cells = cell_indices(positions, present).transpose(0, 1).flatten(1)  # (M, B * voxels)
        of_rank = sum_per_cell(values, cells), sum_per_cell(torch.ones_like(values[:, :1]), cells)
        totals, counts, rows = summed(*of_rank, present.sum(0).to(values.dtype))
        totals = totals.reshape(self.occupancy.value.shape)
        weights = counts.reshape(modalities, 1, GRID, GRID, GRID).expand_as(totals)
        maps = self.occupancy.complete(totals, weights)[0].flatten(2)  # (M, K, cells)
        if self.training:
            self.occupancy.update(totals, weights)

        terms, matrices = [], []
        in_batch = (rows > 0).tolist()
        for a, b in modality_pairs(modalities):
            common = (maps[a] > OCCUPIED).any(1) & (maps[b] > OCCUPIED).any(1)
            common[0] = True
            if not (in_batch[a] or in_batch[b]) or common.sum() == 1:
                continue
            similarity = soft_dice(maps[a, common], maps[b, common])
            terms.append(self._cross_entropy(similarity, first=1))
            matrices.append(similarity[1:, 1:])
        return terms, matrices


def soft_dice(p: Tensor, q: Tensor) -> Tensor:
    """Compute ``2 sum pq / (sum p^2 + sum q^2)`` of every row of p ``(..., n, v)`` with every row of q."""
    energy = p.square().sum(-1)[..., :, None] + q.square().sum(-1)[..., None, :]
    return 2 * (p @ q.mT) / (energy + EPS)


def shown_classes(p: Tensor) -> Tensor:
    """Return which foreground classes each prediction ``(J, K, ...)`` shows: ``(J, K - 1)`` bool.

    A softmax is never 0: a class is shown where it is above chance somewhere.
    """
    return (p[:, 1:].detach() > 1 / p.shape[1]).flatten(2).any(2)


def partner_dice(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """Compute the mean soft Dice ``(J)`` of p and q ``(J, K, ...)`` over foreground classes that either shows.

    Return also which of them ``(J)`` show any.
    """
    shown = shown_classes(p) | shown_classes(q)
    p, q = p[:, 1:].flatten(2), q[:, 1:].flatten(2)
    dice = 2 * (p * q).sum(2) / (p.square().sum(2) + q.square().sum(2) + EPS)
    return (dice * shown).sum(1) / shown.sum(1).clamp(min=1), shown.any(1)


def case_similarities(p: Tensor, q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Compare the predictions p and q ``(J, K, D, H, W)`` of cases in two modalities, those of all ranks together.

    Returns:
        :func:`partner_dice` ``(J)``, the mean soft Dice ``(J, J)`` of every p with every q over the cells of a grid,
        and which cases ``(J)`` show any class, in p or q.
    """
    partners, shows = partner_dice(p, q)
    depth, height, width = (min(side, GRID) for side in p.shape[2:])
    pooled = [adaptive_avg_pool3d(x[:, 1:], (depth, height, width)).flatten(2) for x in (p, q)]
    p, q, in_p, in_q, partners, shows = gathered(*pooled, shown_classes(p), shown_classes(q), partners, shows)
    in_either = (in_p[:, None] | in_q).permute(2, 0, 1)
    dice = soft_dice(p.transpose(0, 1), q.transpose(0, 1))  # (K - 1, J, J)
    return partners, (dice * in_either).sum(0) / in_either.sum(0).clamp(min=1), shows


def cell_indices(positions: Tensor, present: Tensor) -> Tensor:
    """Return the cell ``(B, M, voxels)`` of positions ``(B, M, 3, D, H, W)``; GRID ** 3 where outside or absent."""
    positions = full_precision(positions.detach()).flatten(3)
    inside = ((positions >= 0) & (positions <= 1)).all(2) & present[:, :, None]
    z, y, x = (positions.nan_to_num().clamp(0, 1) * GRID).long().clamp(max=GRID - 1).unbind(2)
    return torch.where(inside, (z * GRID + y) * GRID + x, GRID**3)


def sum_per_cell(values: Tensor, cells: Tensor) -> Tensor:
    """Sum values ``(M, n, v)`` over the voxels of each cell ``(M, v)``: ``(M, n, GRID ** 3)``."""
    sums = values.new_zeros(*values.shape[:2], GRID**3 + 1)
    return sums.scatter_add(2, cells[:, None].expand_as(values), values)[:, :, :-1]
