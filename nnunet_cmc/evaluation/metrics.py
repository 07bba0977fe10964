"""Overlap and surface metrics of one class in one case.

Dice is 2 TP / (2 TP + FP + FN), IoU TP / (TP + FP + FN), in voxels. ASSD (mm) is the mean of the distances from each
surface voxel to the other mask's surface, both directions pooled; HD95 (mm) the larger of the directed 95th
percentiles; NSD the share of all surface voxels within a tolerance (Nikolov et al., J Med Internet Res 2021).

Empty masks are treated as in Metrics Reloaded (Maier-Hein et al., Nat Methods 2024) and nnU-Net: of two, all is NaN; of
one, Dice, IoU and NSD are 0, and distances NaN.
"""

from collections.abc import Sequence

import numpy as np
from scipy import ndimage

METRICS = ("Dice", "IoU", "ASSD", "HD95", "NSD")
COUNTS = ("TP", "FP", "FN", "TN", "n_ref", "n_pred")
NSD_TOLERANCE = 2.0  # mm; the right one is the disagreement between human readers on the structure


def surface(mask: np.ndarray) -> np.ndarray:
    """Return the voxels of the boolean ``mask`` that its 6-neighbour erosion removes: boolean, same shape."""
    return mask & ~ndimage.binary_erosion(mask)


def surface_distances(a: np.ndarray, b: np.ndarray, spacing: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Compute the distances in mm from each surface voxel of ``a`` to the surface of ``b``, and from ``b`` to ``a``.

    Both are non-empty masks of one shape; ``spacing`` is the voxel size in mm along each array axis.
    """
    a, b = np.asarray(a, bool), np.asarray(b, bool)
    box = ndimage.find_objects((a | b).view(np.uint8))[0]
    surface_a, surface_b = surface(a[box]), surface(b[box])
    return _distances(surface_a, surface_b, spacing), _distances(surface_b, surface_a, spacing)


def _distances(points: np.ndarray, targets: np.ndarray, spacing: Sequence[float]) -> np.ndarray:
    """Compute the distance in mm from each True voxel of ``points`` to the nearest True voxel of ``targets``."""
    # The index of the nearest target takes 12 bytes a voxel; the map of distances, which scipy derives from it, 60.
    nearest = ndimage.distance_transform_edt(~targets, sampling=spacing, return_distances=False, return_indices=True)
    where = np.nonzero(points)
    offsets = [(index[where] - at) * step for index, at, step in zip(nearest, where, spacing, strict=True)]
    return np.sqrt(np.sum(np.square(offsets), axis=0))


def require_tolerance(tolerance: float) -> None:
    """Raise a ValueError if this is no tolerance of NSD in mm."""
    if not 0 <= tolerance < np.inf:
        raise ValueError(f"The tolerance of NSD is {tolerance}: give a number of mm from 0 on.")


def _require_one_shape(masks: Sequence[np.ndarray]) -> None:
    *shapes, last = (str(np.shape(mask)) for mask in masks)
    if {*shapes} != {last}:
        raise ValueError(f"The masks have the shapes {', '.join(shapes)} and {last}: bring them onto one grid.")


def compute_metrics(
    reference: np.ndarray,
    prediction: np.ndarray,
    spacing: Sequence[float],
    tolerance: float = NSD_TOLERANCE,
    ignore: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute all metrics of one class in one case.

    Args:
        reference, prediction: masks of one shape, boolean or with 0 outside of the class.
        spacing: voxel size in mm along each array axis.
        tolerance: of NSD, in mm.
        ignore: mask of voxels that do not count (nnU-Net's ignore label), or None.

    Returns:
        Dice, IoU, ASSD (mm), HD95 (mm), NSD as defined above, and nnU-Net's voxel counts TP, FP, FN, TN, n_ref, n_pred.

    Raises:
        ValueError: masks of different shapes, or a spacing or tolerance that is none.
    """
    _require_one_shape([mask for mask in (reference, prediction, ignore) if mask is not None])
    if len(spacing) != np.ndim(reference) or not all(0 < step < np.inf for step in spacing):
        raise ValueError(
            f"The spacing is {tuple(spacing)}: give {np.ndim(reference)} numbers of mm above 0, one for each axis."
        )
    require_tolerance(tolerance)
    reference, prediction = np.asarray(reference, bool), np.asarray(prediction, bool)
    counted = reference.size
    if ignore is not None:
        considered = ~np.asarray(ignore, bool)
        reference, prediction = reference & considered, prediction & considered
        counted = int(np.count_nonzero(considered))
    n_ref, n_pred = int(np.count_nonzero(reference)), int(np.count_nonzero(prediction))
    tp = int(np.count_nonzero(reference & prediction))
    union = n_ref + n_pred - tp
    metrics = dict.fromkeys(METRICS, float("nan"))
    if union:
        metrics |= {"Dice": 2 * tp / (n_ref + n_pred), "IoU": tp / union, "NSD": 0.0}
    if n_ref and n_pred:
        directed = surface_distances(reference, prediction, spacing)
        pooled = np.concatenate(directed)
        metrics["ASSD"] = float(pooled.mean())
        metrics["HD95"] = float(max(np.percentile(distances, 95) for distances in directed))
        # spacings are read from files of single precision, where five voxels of 0.4 mm are more than 2 mm
        metrics["NSD"] = float(np.mean(pooled <= tolerance + 1e-6 * max(1, tolerance)))
    return metrics | {
        "TP": tp, "FP": n_pred - tp, "FN": n_ref - tp, "TN": counted - union, "n_ref": n_ref, "n_pred": n_pred
    }  # fmt: skip
