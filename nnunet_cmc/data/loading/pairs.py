"""Batches of labelled and unlabelled pairs: the modalities of one case, or two scans of different modalities."""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

import blosc2
import numpy as np
import torch
from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd
from threadpoolctl import ThreadpoolController
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.data.loading.cases import weight_of
from nnunet_cmc.data.loading.fusion import Alone, Fusion
from nnunet_cmc.data.loading.locating import nowhere, position_stride
from nnunet_cmc.data.loading.sampling import CaseSampler
from nnunet_cmc.data.loading.seeding import SeededLoader
from nnunet_cmc.data.loading.views import View


class Crop(NamedTuple):
    """A patch to read: ``channels`` of ``case`` from ``corner`` (voxels), the others zero."""

    case: str
    channels: tuple[int, ...]
    corner: list[int]
    body_box: np.ndarray  # (3, 2) voxels
    data: blosc2.NDArray  # (M, D, H, W), on disk
    seg: blosc2.NDArray | None


class PairLoader(SeededLoader):
    """nnU-Net's data loader for pairs of modalities.

    A *row* is one network sample ``(M, D, H, W)``. A case with several modalities is one row, and a pair by itself: one
    crop, one augmentation. A case with a single modality gets a partner of another one (see :class:`CaseSampler`), at
    the same relative position in the body or, if the pair is centred on foreground, at foreground of the same class, if
    it has any. These are two rows, augmented independently, since voxels of different grids do not correspond.

    A batch is a :class:`Batch`. Labelled rows are fused as ``fusion`` says, unlabelled ones not at all. ``positions``
    are of cells of :func:`position_stride` voxels along each axis, NaN outside of the scan and for scans without a
    partner, whose position is not used.

    Args:
        labeled: the labelled cases.
        unlabeled: the cases without labels, or None.
        pairs: number of labelled pairs in a batch.
        unlabeled_pairs: number of unlabelled ones.
        replaced: number of labelled pairs that the unlabelled ones replace: the first ones, which nnU-Net does not
            centre on foreground.
        initial_patch_size, patch_size: voxels read, and left after augmentation.
        label_manager: nnU-Net's.
        oversample_foreground_percent: share of the labelled pairs whose scans are centred on foreground.
        fusion: of the labelled rows.
        views: changes of each batch, in this order: see :mod:`~nnunet_cmc.data.loading.views`.
        transforms, unlabeled_transforms: nnU-Net's augmentation of the labelled and the other rows, :func:`located`.
        seeding: SeededLoader's ``seed``, ``rank`` and ``first_batch``.
    """

    def __init__(
        self,
        labeled: CaseSampler,
        unlabeled: CaseSampler | None,
        pairs: int,
        unlabeled_pairs: int,
        initial_patch_size,
        patch_size,
        label_manager,
        oversample_foreground_percent: float,
        fusion: Fusion,
        transforms,
        unlabeled_transforms,
        views: Sequence[View] = (),
        replaced: int = 0,
        **seeding,
    ):
        super().__init__(
            labeled.dataset, pairs, initial_patch_size, patch_size, label_manager, oversample_foreground_percent,
            transforms=transforms, **seeding,
        )  # fmt: skip
        self.labeled = labeled
        self.unlabeled = unlabeled
        self.unlabeled_pairs = unlabeled_pairs
        self.replaced = replaced if unlabeled is not None else 0
        self.fusion = fusion
        self.unlabeled_transforms = unlabeled_transforms
        self.views = views

    @torch.no_grad()
    def make_batch(self) -> dict:
        """Draw a :class:`Batch` with the global random generators, as a dictionary."""
        with _thread_pools().limit(limits=1):
            batch = self._draw_batch()
        for view in self.views:
            batch = view(batch)
        return batch.as_dict()

    def _draw_batch(self) -> Batch:
        labeled = range(self.replaced, self.batch_size)
        pairs = [self._draw_pair(self.labeled, self.get_do_oversample(i)) for i in labeled]
        data, rows = self._read_all(pairs, self.transforms)
        n_labeled = len(rows)
        if self.unlabeled is not None:
            hidden = [self._draw_pair(self.unlabeled, False) for _ in range(self.unlabeled_pairs)]
            more_data, more_rows = self._read_all(hidden, self.unlabeled_transforms)
            data, rows, pairs = torch.cat([data, more_data]), rows + more_rows, pairs + hidden
        crops = [crop for pair in pairs for crop in pair]
        num_modalities = data.shape[1]
        return Batch(
            data=data,
            target=torch.stack([row["segmentation"] for row in rows[:n_labeled]]),
            fusion=torch.stack(
                [
                    (self.fusion if i < n_labeled else Alone())(crop.channels, num_modalities)
                    for i, crop in enumerate(crops)
                ]
            ),
            pairs=_row_of_each_modality(pairs, num_modalities),
            positions=torch.stack([row["positions"] for row in rows]),
            pseudo_targets=_stacked_labels(rows[n_labeled:]),
            pseudo_weights=_weights(crops[n_labeled:]),
            keys=[crop.case for crop in crops],
        )

    def _read_all(self, pairs: list[list[Crop]], transforms) -> tuple[Tensor, list[dict[str, Tensor]]]:
        """Read every row's ``(M, D, H, W)``, absent channels zero, and its target and positions."""
        crops = [crop for pair in pairs for crop in pair]
        # numpy's zeros take no time until they are read
        data = torch.from_numpy(np.zeros((len(crops), crops[0].data.shape[0], *self.final_patch_size), np.float32))
        rows = []
        for out, crop in zip(data, crops, strict=True):
            row = self._read(crop, transforms)
            out[list(crop.channels)] = row.pop("image")
            rows.append(row)
        return data, rows

    def _draw_pair(self, sampler: CaseSampler, force_foreground: bool) -> list[Crop]:
        case = sampler.draw()
        data, seg, _, properties = sampler.dataset.load_case(case)
        centre = self._draw_class(properties) if force_foreground else None
        corner, _ = self.get_bbox(data.shape[1:], force_foreground, properties.get("class_locations"), centre)
        anchor = Crop(case, sampler.present[case], corner, np.array(properties["body_box"], dtype=float), data, seg)
        partner = sampler.draw_partner(case)
        return [anchor] if partner is None else [anchor, self._partner_of(anchor, sampler, *partner, centre)]

    def _draw_class(self, properties: dict) -> int | None:
        """Draw a class of a case with the same random numbers as nnU-Net's get_bbox; None if it shows none."""
        shown = [label for label, voxels in properties["class_locations"].items() if len(voxels)]
        return shown[np.random.choice(len(shown))] if shown else None

    def _partner_of(self, anchor: Crop, sampler: CaseSampler, case: str, modality: int, centre: int | None) -> Crop:
        """Take a crop of ``case`` at foreground of the class ``centre`` or, without any, at the anchor's position."""
        data, seg, _, properties = sampler.dataset.load_case(case)
        box = np.array(properties["body_box"], dtype=float)
        if centre is not None and len(properties["class_locations"].get(centre, ())):
            corner, _ = self.get_bbox(data.shape[1:], True, properties["class_locations"], centre)
        else:
            corner = self._same_place(anchor, box, data.shape[1:])
        return Crop(case, (modality,), corner, box, data, seg)

    def _same_place(self, anchor: Crop, box: np.ndarray, shape: Sequence[int]) -> list[int]:
        """Compute the corner of a crop whose centre has the same relative position in the body as the anchor's."""
        half = np.array(self.patch_size) / 2
        relative = (np.array(anchor.corner) + half - anchor.body_box[:, 0]) / np.ptp(anchor.body_box, axis=1)
        corner = np.round(box[:, 0] + relative * np.ptp(box, axis=1) - half).astype(int)
        lowest, highest = zip(*(self._corner_range(side, d) for d, side in enumerate(shape)), strict=True)
        return [int(c) for c in np.clip(corner, lowest, highest)]

    def _corner_range(self, side: int, d: int) -> tuple[int, int]:
        """Compute the first and last start of a patch along axis d of a volume, as in nnU-Net's get_bbox."""
        pad = max(int(self.need_to_pad[d]), int(self.patch_size[d]) - side)
        return -pad // 2, side + pad // 2 + pad % 2 - int(self.patch_size[d])

    def _read(self, crop: Crop, transforms) -> dict[str, Tensor]:
        box = [[lo, lo + int(side)] for lo, side in zip(crop.corner, self.patch_size, strict=True)]
        first, last = min(crop.channels), max(crop.channels)  # what is absent is neither read nor augmented
        read = torch.from_numpy(crop_and_pad_nd(crop.data, [[first, last + 1], *box], 0)).float()
        everything = len(crop.channels) == len(read)
        sample = {"image": read if everything else read[[channel - first for channel in crop.channels]]}
        if len(crop.channels) == 1:
            sample["regression_target"] = nowhere(read.shape[1:])
        if crop.seg is not None:
            sample["segmentation"] = torch.from_numpy(crop_and_pad_nd(crop.seg, box, -1, cast_cropped_to=np.int16))
        sample = transforms(**sample)
        if "regression_target" in sample:
            positions = _positions(sample.pop("regression_target"), crop.corner, crop.body_box)
        else:
            positions = nowhere([side // position_stride(side) for side in sample["image"].shape[1:]])
        return {**sample, "positions": positions}


@cache
def _thread_pools() -> ThreadpoolController:
    """Return the thread pools of this process; finding them takes a tenth of the time of a batch of one patch."""
    return ThreadpoolController()


def _stacked_labels(rows: list[dict[str, Tensor]]) -> Tensor | None:
    """Stack the labels of rows that have them."""
    return torch.stack([row["segmentation"] for row in rows]) if rows and "segmentation" in rows[0] else None


def _weights(crops: list[Crop]) -> Tensor | None:
    """Return the weights of crops with pseudo-labels."""
    weights = [weight_of(crop.seg) for crop in crops if crop.seg is not None]
    return torch.tensor(weights) if weights else None


def _positions(places: Tensor, corner: list[int], body_box: np.ndarray) -> Tensor:
    """Compute the relative position in the body of ``places (3, D, H, W)``, voxel centres relative to ``corner``."""
    extent = np.maximum(np.ptp(body_box, axis=1), 1.0)
    offset = (np.array(corner) + 0.5 - body_box[:, 0]) / extent
    return places * _column(1 / extent) + _column(offset)


def _column(values: np.ndarray) -> Tensor:
    return torch.from_numpy(values).float().view(3, 1, 1, 1)


def _row_of_each_modality(pairs: list[list[Crop]], num_modalities: int) -> Tensor:
    rows = torch.full((len(pairs), num_modalities), -1)
    row = 0
    for p, pair in enumerate(pairs):
        for crop in pair:
            rows[p, list(crop.channels)] = row
            row += 1
    return rows
