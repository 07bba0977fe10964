"""Choice of the target spacing at which a fixed cube covers enough context without upsampling."""

from collections.abc import Sequence

import numpy as np


def isotropic_spacing(
    shapes: Sequence[Sequence[int]], spacings: Sequence[Sequence[float]], patch_size: int, coarsest: float | None
) -> tuple[float, str]:
    """Compute ``s = min(max(E / (2 * patch_size), p), max(coarsest, p))`` in mm, and the reason for it in a sentence.

    E is the largest axis of the median image extent, p the median of each image's finest spacing: the cube spans half
    of the image, at a spacing no finer than the images' and no coarser than ``coarsest``, unless the images are.

    Args:
        shapes: of each image, in voxels.
        spacings: of each image, in mm.
        patch_size: edge of the cube in voxels.
        coarsest: in mm; None sets no limit.
    """
    extent = float(np.median(np.multiply(shapes, spacings), axis=0).max())
    finest = float(np.median(np.min(spacings, axis=1)))
    half = extent / (2 * patch_size)
    spans = f"a cube of {patch_size} voxels spans half of the median image ({extent:.0f} mm)"
    if half <= finest:
        return finest, f"{finest:.3g} mm, as fine as the images are (median), although {spans} at {half:.3g} mm."
    if coarsest is None or half <= max(coarsest, finest):
        return half, f"{half:.3g} mm, where {spans}."
    if coarsest < finest:
        return finest, f"{finest:.3g} mm, as fine as the images are (median), although {spans} only at {half:.3g} mm."
    return coarsest, f"{coarsest:.3g} mm, as foundation encoders expect, although {spans} only at {half:.3g} mm."
