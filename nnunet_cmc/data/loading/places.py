"""Whether classes keep their places in the body between patients, as organs do and lesions do not."""

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

CELLS = 8  # of the body box along each axis
# Mean overlap from which classes keep their places. Measured in body boxes: organs of AMOS 0.48 (12 cases), of a CT and
# an MR scan 0.64; gliomas 0.13 (80 cases; 99 % of random eights of them below 0.30), lesions of multiple sclerosis
# 0.14.
KEPT = 0.3


def overlap_of_places(dataset: nnUNetBaseDataset) -> dict[int, float]:
    """Compute how much a class's occupancy of the body box overlaps between cases: by label, from 0 to 1.

    An occupancy is the share of the class's voxels in each of :data:`CELLS` ^ 3 cells; the overlap is the soft Dice of
    two cases' occupancies, and the mean over every two cases. Labels that fewer than two cases show are left out.

    Args:
        dataset: preprocessed labelled cases; of these only ``body_box``, in voxels, and ``class_locations`` are read.
    """
    occupancies: dict[int, list[np.ndarray]] = {}
    for case in dataset.identifiers:
        properties = dataset.load_case(case)[3]
        low, high = np.array(properties["body_box"], dtype=float).T
        for label, voxels in properties["class_locations"].items():
            if len(voxels):  # rows are (channel, D, H, W)
                places = (np.asarray(voxels)[:, 1:] + 0.5 - low) / np.maximum(high - low, 1)
                counts, _ = np.histogramdd(places.clip(0, 1), CELLS, [(0, 1)] * 3)
                occupancies.setdefault(int(label), []).append(counts.ravel() / counts.sum())
    return {label: _mean_soft_dice(np.stack(each)) for label, each in occupancies.items() if len(each) > 1}


def _mean_soft_dice(x: np.ndarray) -> float:
    """Compute the mean of ``2 ab / (aa + bb)`` over every two rows a, b of ``x (n, cells)``."""
    products = x @ x.T
    energy = np.diagonal(products)
    dice = 2 * products / (energy[:, None] + energy)
    return float(dice[np.triu_indices(len(x), 1)].mean())
