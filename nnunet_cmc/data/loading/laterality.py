"""Classes on one side of the body only, which forbid mirroring: along any axis it would swap left and right."""

import numpy as np
from nnunetv2.training.dataloading.nnunet_dataset import nnUNetBaseDataset

LEFT_RIGHT = 2  # the last array axis of a scan as it is read, on canonical axes; plans may transpose it
MIN_CASES = 3  # one side in fewer cases may be chance
MARGIN = 0.05  # of the body's width: a centre nearer to the middle is on neither side


def sided_classes(dataset: nnUNetBaseDataset, left_right: int = LEFT_RIGHT) -> list[int]:
    """Find the labels whose centre lies on the same side of the body in every case that shows them.

    A class in fewer than :data:`MIN_CASES` cases is included, to be safe.

    Args:
        dataset: preprocessed labelled cases; only their properties are read.
        left_right: axis of the preprocessed arrays.
    """
    positions: dict[int, list[float]] = {}
    for case in dataset.identifiers:
        properties = dataset.load_case(case)[3]
        low, high = properties["body_box"][left_right]
        for label, voxels in properties["class_locations"].items():
            if len(voxels):  # rows are (channel, D, H, W)
                centre = np.mean(np.asarray(voxels)[:, 1 + left_right]) + 0.5
                positions.setdefault(label, []).append((centre - low) / (high - low) - 0.5)
    return [
        label
        for label, offsets in positions.items()
        if len(offsets) < MIN_CASES or min(offsets) > MARGIN or max(offsets) < -MARGIN
    ]
