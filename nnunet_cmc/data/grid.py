"""Where the voxels of a volume lie, from its header alone."""

import gzip
import zlib
from itertools import product
from os import PathLike
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK

NIFTI = (".nii", ".nii.gz")

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
        ValueError: the file cannot be read, is not a 3-D volume with one value a voxel, or its geometry is degenerate.
    """
    header = _nifti_header(file) if str(file).endswith(NIFTI) else None
    if header is not None:
        _require_finite_transform(header)  # over some that are not, ITK never comes to an end
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with open(file, "rb"):  # of a file that it may not read, ITK says that its format is unknown
            reader.ReadImageInformation()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except RuntimeError as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error
    if reader.GetDimension() != 3:
        size = " x ".join(map(str, reader.GetSize()))
        raise ValueError(f"has {reader.GetDimension()} dimensions ({size}): give every volume as a 3-D file of its own")
    if reader.GetNumberOfComponents() != 1:
        raise ValueError(f"has {reader.GetNumberOfComponents()} values a voxel: give a file with one")
    grid = Grid(reader.GetSize(), reader.GetSpacing(), reader.GetOrigin(), reader.GetDirection())
    if header is not None:
        spacing = header["pixdim"][1:4]  # ITK takes 1 mm for a spacing that is 0 or no number
        if not (np.isfinite(spacing).all() and spacing.all()):
            raise ValueError(f"has the voxel spacing {_text(spacing)}: correct its header")
    # A NIfTI file with such numbers is refused by ITK; in other formats it is not.
    if not np.isfinite([*grid.spacing, *grid.origin, *grid.direction]).all() or min(grid.spacing) <= 0:
        raise ValueError(f"has the voxel spacing {_text(grid.spacing)} and origin {_text(grid.origin)}: correct them")
    axes = np.reshape(grid.direction, (3, 3))
    if not np.allclose(axes @ axes.T, np.eye(3), atol=1e-3):
        raise ValueError(f"has axes that are not at right angles ({_text(grid.direction)}): correct its header")
    return grid


def reason(error: Exception) -> str:
    """The part of an ITK or nibabel message that says why, on one line."""
    return " ".join(str(error).split("ERROR:")[-1].split()).rstrip(".") or type(error).__name__


def _nifti_header(file: str | PathLike) -> nibabel.Nifti1Header:
    try:
        with (gzip.open if str(file).endswith(".gz") else open)(file, "rb") as content:
            start = content.read(nibabel.Nifti1Header.sizeof_hdr)
        return nibabel.Nifti1Header(start, check=False)  # nibabel's check would repair it
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror or reason(error)})") from error
    except (EOFError, zlib.error, nibabel.wrapstruct.WrapStructError, nibabel.spatialimages.HeaderDataError) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error


def _require_finite_transform(header: nibabel.Nifti1Header) -> None:
    quaternion = [f"{part}_{axis}" for part, axes in (("quatern", "bcd"), ("qoffset", "xyz")) for axis in axes]
    for code, fields in (("qform_code", quaternion), ("sform_code", ["srow_x", "srow_y", "srow_z"])):
        numbers = np.hstack([header[field] for field in fields])
        if header[code] > 0 and not np.isfinite(numbers).all():
            raise ValueError(f"has NaN or infinity in its transform ({_text(numbers)}): correct its header")


def _text(values: tuple[float, ...] | np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values)


def _rounded(values: tuple) -> tuple:
    return tuple(round(value, 3) + 0 for value in values)  # + 0: no -0.0
