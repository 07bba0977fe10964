"""Style swap: scans of one modality with the low frequencies of scans of another (FDA, Yang & Soatto 2020)."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from nnunet_cmc.data.loading.background import is_background
from nnunet_cmc.data.loading.batch import Batch


@dataclass(frozen=True)
class SwapStyles:
    """Add restyled rows: each scan with the low-frequency amplitudes of a scan of another modality of the batch.

    They replace the translations that UMML (Zhu et al., MICCAI 2021) learns between modalities. Its translators are
    generative networks, trained adversarially with the segmentation, and need more memory, time and scans than that;
    amplitudes need no training. They carry brightness, bias field and coarse contrast, but cannot reverse the order of
    tissue intensities, as a translator from CT to MR can.

    A row of scans gets at most one restyled row, so a batch at most doubles. In it, each scan is in the channel of
    another modality, drawn from those in the batch, and is predicted alone; it keeps the scan's label and background.
    ``swaps`` has their places. The restyled rows of labelled scans follow the labelled rows, those of unlabelled scans
    come last, and a batch of a single modality gets none.

    Args:
        band: highest frequency that is swapped, in cycles per voxel along each axis; beta of FDA.
    """

    band: float = 0.05

    def __call__(self, batch: Batch) -> Batch:
        """Return ``batch`` with restyled rows and ``swaps``."""
        there = (batch.data != 0).flatten(2).any(2) & batch.predicted  # a patch may lie outside its scan
        modalities = np.flatnonzero(there.any(0).numpy())
        rows: list[int] = []  # of which each restyled row is a copy
        swaps: list[tuple[int, int, int, int]] = []  # row, modality, restyled row, its modality
        for row, has in enumerate(there.tolist()):
            order = np.random.permutation(modalities)
            targets = dict(zip(order.tolist(), np.roll(order, 1).tolist(), strict=True))
            pairs = [(m, other) for m, other in targets.items() if has[m] and m != other]
            swaps += [(row, m, len(rows), other) for m, other in pairs]
            rows += [row] if pairs else []

        data = batch.data.new_zeros(len(rows), *batch.data.shape[1:])
        shown = torch.zeros(len(rows), there.shape[1], dtype=torch.bool)
        for row, m, new, other in swaps:
            style = np.random.choice(np.flatnonzero(there[:, other].numpy()))
            data[new, other] = restyled(batch.data[row, m], batch.data[style, other], self.band)
            shown[new, other] = True
        return _with_restyled(batch, data, torch.diag_embed(shown), rows, swaps)


def restyled(scan: Tensor, style: Tensor, band: float) -> Tensor:
    """Give ``scan`` the amplitudes of ``style`` at low frequencies; its phases and its background stay.

    Two things differ from FDA, whose images are positive and without background. The sign of the mean, the phase of
    frequency 0, is part of the style. And background (:func:`is_background`) is replaced by the mean of the rest of its
    scan, since low frequencies would otherwise show the silhouette.

    Args:
        scan, style: ``(D, H, W)`` float32.
        band: highest frequency, cycles per voxel along each axis.
    """
    spectrum, other = (torch.fft.rfftn(_filled(x)) for x in (scan, style))
    *along, last = scan.shape
    frequencies = [*map(torch.fft.fftfreq, along), torch.fft.rfftfreq(last)]
    low = torch.stack(torch.meshgrid(*frequencies, indexing="ij")).abs().amax(0) <= band
    spectrum[low] = torch.polar(other[low].abs(), spectrum[low].angle())
    spectrum[0, 0, 0] = other[0, 0, 0]
    return torch.where(is_background(scan), scan, torch.fft.irfftn(spectrum, s=scan.shape))


def _filled(x: Tensor) -> Tensor:
    """Replace the background of ``x`` by the mean of all other values."""
    there = ~is_background(x)
    return torch.where(there, x, x.where(there, 0).sum() / there.sum().clamp(min=1))


def _with_restyled(
    batch: Batch, data: Tensor, fusion: Tensor, rows: list[int], swaps: list[tuple[int, int, int, int]]
) -> Batch:
    """Add restyled rows, each a copy of one of ``rows``, after the labelled and after the unlabelled ones."""
    n, labeled = len(batch.data), batch.n_labeled
    first = sum(row < labeled for row in rows)  # of the restyled rows have a label

    def moved(row: int) -> int:
        return row if row < labeled else row + first

    def added(new: int) -> int:
        return labeled + new if new < first else n + new

    def joined(old: Tensor, new: Tensor) -> Tensor:
        return torch.cat([old[:labeled], new[:first], old[labeled:], new[first:]])

    table = torch.full((len(swaps), 2, data.shape[1]), -1)
    for swap, (row, m, new, other) in zip(table, swaps, strict=True):
        swap[0, m], swap[1, other] = moved(row), added(new)
    labels, keys = batch.target, batch.keys
    hidden = [row - labeled for row in rows[first:]]

    def with_copies(x: Tensor | None) -> Tensor | None:  # of unlabelled rows
        return None if x is None else torch.cat([x, x[hidden]])

    return replace(
        batch,
        data=joined(batch.data, data),
        target=torch.cat([labels, labels[rows[:first]]]),
        fusion=joined(batch.fusion, fusion),
        pairs=torch.where(batch.pairs < labeled, batch.pairs, batch.pairs + first),
        positions=joined(batch.positions, torch.full((len(rows), *batch.positions.shape[1:]), torch.nan)),
        keys=keys and [keys[i] for i in (*range(labeled), *rows[:first], *range(labeled, n), *rows[first:])],
        pseudo_targets=with_copies(batch.pseudo_targets),
        pseudo_weights=with_copies(batch.pseudo_weights),
        swaps=table,
    )
