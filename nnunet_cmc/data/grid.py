"""Where the voxels of a volume lie, from its header alone."""

from itertools import product
from os import PathLike
from typing import NamedTuple

import numpy as np
import SimpleITK

TOLERANCE = 0.1  # of a voxel: as far as the corners of two volumes may lie apart and still share a grid


class Grid(NamedTuple):
    """Size in voxels, spacing and origin in mm, axes in order x, y, z."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def corners(self) -> np.ndarray:
        """Centres of the eight corner voxels in mm, ``(8, 3)``."""
        indices = np.array(list(product(*((0, size - 1) for size in self.size))))
        return indices * self.spacing @ np.reshape(self.direction, (3, 3)).T + self.origin

    def differences(self, other: "Grid") -> list[str]:
        """What keeps the two from being one grid, each with both values; empty if nothing does."""
        if self.size == other.size:
            distance = np.linalg.norm(self.corners() - other.corners(), axis=1).max()
            if distance <= TOLERANCE * min(other.spacing):
                return []
        return [
            f"{name} {_rounded(mine)} instead of {_rounded(theirs)}"
            for name, mine, theirs in zip(self._fields, self, other, strict=True)
            if _rounded(mine) != _rounded(theirs)
        ]


def read_grid(file: str | PathLike) -> Grid:
    """Grid of a volume.

    Raises:
        ValueError: the file cannot be read, or is not a 3-D volume with one value a voxel.
    """
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        reason = " ".join(str(error).split("ERROR:")[-1].split()).rstrip(".")
        raise ValueError(f"cannot be read ({reason})") from error
    if reader.GetDimension() != 3:
        size = " x ".join(map(str, reader.GetSize()))
        raise ValueError(f"has {reader.GetDimension()} dimensions ({size}): give every volume as a 3-D file of its own")
    if reader.GetNumberOfComponents() != 1:
        raise ValueError(f"has {reader.GetNumberOfComponents()} values a voxel: give a file with one")
    return Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())


def _rounded(values: tuple) -> tuple:
    return tuple(round(value, 3) + 0 for value in values)  # + 0: no -0.0
