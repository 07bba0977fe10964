"""The grid of a volume, read from its header alone, and the comparison of grids."""

import gzip
import zlib
from collections.abc import Sequence
from itertools import product
from os import PathLike
from typing import NamedTuple

import nibabel
import numpy as np
import SimpleITK

from nnunet_cmc.utils.formatting import dimensions

NIFTI = (".nii", ".nii.gz")
HEADER_SIZES = {size.to_bytes(4, order): size for size in (348, 540) for order in ("little", "big")}  # NIfTI-1, NIfTI-2
GZIP = b"\x1f\x8b"

RIGHT_ANGLE = 1e-3  # largest cosine between axes at right angles, given the rounding in headers
TOLERANCE = 0.1  # of a voxel: largest distance between the corners of two volumes on one grid


class Grid(NamedTuple):
    """Size in voxels, spacing and origin in mm, axes in order x, y, z."""

    size: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...]
    direction: tuple[float, ...]

    def axes(self) -> np.ndarray:
        """Compute the step from voxel to voxel along each axis in mm, ``(3, 3)``, an axis in each column."""
        return np.reshape(self.direction, (3, 3)) * self.spacing

    def corners(self) -> np.ndarray:
        """Compute the centres of the eight corner voxels in mm, ``(8, 3)``."""
        return _corner_indices(self.size) @ self.axes().T + self.origin

    def is_part_of(self, other: "Grid") -> bool:
        """Tell whether all voxels are voxels of ``other``, perhaps along axes in another order or direction."""
        into = np.linalg.inv(other.axes())
        steps = np.round(into @ self.axes())
        found = (self.corners() - other.origin) @ into.T
        voxels = np.round(found[0]) + _corner_indices(self.size) @ steps.T
        permuted = all((np.abs(steps).sum(axis) == 1).all() for axis in (0, 1))
        inside = (voxels >= 0).all() and (voxels < other.size).all()
        return bool(permuted and inside and np.abs(found - voxels).max() <= TOLERANCE)

    def canonical_spacing(self) -> tuple[float, ...]:
        """Return the spacing in mm along D, H, W of canonical axes, as :class:`CMCReaderWriter` reads the volume."""
        return tuple(self.spacing[axis] for axis in self._canonical_axes())

    def canonical_size(self) -> tuple[int, ...]:
        """Return the size in voxels along D, H, W of canonical axes."""
        return tuple(self.size[axis] for axis in self._canonical_axes())

    def _canonical_axes(self) -> list[int]:
        """Find the voxel axis of x, y, z that each of D, H, W is: a voxel of 1 x 2 x 3 mm, oriented, tells."""
        voxel = self.place(SimpleITK.Image(1, 1, 1, SimpleITK.sitkUInt8))
        voxel.SetSpacing((1.0, 2.0, 3.0))
        return [round(mm) - 1 for mm in SimpleITK.DICOMOrient(voxel, "RAS").GetSpacing()[::-1]]

    def place(self, image: SimpleITK.Image) -> SimpleITK.Image:
        """Give ``image`` this spacing, origin and direction, and return it."""
        image.SetSpacing(self.spacing)
        image.SetOrigin(self.origin)
        image.SetDirection(self.direction)
        return image

    def differences(self, other: "Grid") -> list[str]:
        """Describe each difference with both values; empty if the grids agree within :data:`TOLERANCE`."""
        if self.size == other.size:
            distance = np.linalg.norm(self.corners() - other.corners(), axis=1).max()
            if distance <= TOLERANCE * min(other.spacing):
                return []
        for digits in (3, 6, 9):  # enough to show a difference; + 0: no -0.0
            mine, theirs = ([tuple(round(n, digits) + 0 for n in field) for field in grid] for grid in (self, other))
            if mine != theirs:
                break
        return [
            f"{name} {own} instead of {its}"
            for name, own, its in zip(self._fields, mine, theirs, strict=True)
            if own != its
        ]


def _corner_indices(size: Sequence[int]) -> np.ndarray:
    return np.array(list(product(*((0, length - 1) for length in size))))


def read_grid(file: str | PathLike) -> Grid:
    """Read the grid of a file. ValueError: it is unreadable, not one 3-D volume, or its geometry is degenerate."""
    header = _nifti_header(file) if is_nifti(file) else None
    if header is not None:
        _require_sound_transforms(header)
    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(file))
    try:
        with open(file, "rb"):  # of a file that it may not read, ITK says that its format is unknown
            reader.ReadImageInformation()
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror})") from error
    except RuntimeError as error:
        if header is not None and "orthonormal" in str(error):  # ITK's tolerance is smaller than ours
            raise _sheared(header.get_best_affine()[:3, :3]) from error
        raise ValueError(f"cannot be read ({reason(error)})") from error
    if reader.GetDimension() != 3:
        raise ValueError(
            f"has {reader.GetDimension()} dimensions ({dimensions(reader.GetSize())}): give every volume as a 3-D file "
            "of its own"
        )
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
    _require_right_angles(axes, axes)
    return grid


def is_nifti(file: str | PathLike) -> bool:
    """Tell whether a file is named as NIfTI, in lower or upper case."""
    return str(file).lower().endswith(NIFTI)


def is_nifti2(file: str | PathLike) -> bool:
    """Tell whether a file that is named as NIfTI is NIfTI-2. ValueError if it cannot be read."""
    return HEADER_SIZES.get(_start(file)[:4]) == 540


def is_for_itk(file: str | PathLike) -> bool:
    """Tell whether ITK reads the values that a NIfTI file says. ValueError if the file cannot be read.

    It does not read NIfTI-2, and adds an intercept whose slope is 0, which by the standard is not to be applied.
    """
    if is_nifti2(file):
        return False
    header = _nifti_header(file)
    return bool(header["scl_slope"] != 0 or header["scl_inter"] == 0)


def distance_of_transforms(file: str | PathLike) -> float:
    """Compute how far apart in mm the qform and the sform of a NIfTI file place a voxel.

    It is 0 within :data:`TOLERANCE`, and for a file that has not both. ValueError if the file cannot be read.
    """
    header = _nifti_header(file) if is_nifti(file) and not is_nifti2(file) else None
    if header is None or header["qform_code"] < 1 or header["sform_code"] < 1:
        return 0.0
    between = header.get_qform() - header.get_sform()
    shifts = _corner_indices(header.get_data_shape()[:3]) @ between[:3, :3].T + between[:3, 3]
    distance = float(np.linalg.norm(shifts, axis=1).max())
    return distance if distance > TOLERANCE * min(header.get_zooms()[:3]) else 0.0


def reason(error: Exception) -> str:
    """Extract the cause from a message of ITK or nibabel, on one line."""
    return " ".join(str(error).split("ERROR:")[-1].split()).rstrip(".") or type(error).__name__


def _nifti_header(file: str | PathLike) -> nibabel.Nifti1Header:
    start = _start(file)
    if HEADER_SIZES.get(start[:4]) == 540:
        raise ValueError("is NIfTI-2, which ITK does not read: write it as NIfTI-1, as `nnunet_cmc convert` does")
    try:
        return nibabel.Nifti1Header(start, check=False)  # nibabel's check would repair it
    except (nibabel.wrapstruct.WrapStructError, nibabel.spatialimages.HeaderDataError) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error


def _start(file: str | PathLike) -> bytes:
    """Read the first bytes of a NIfTI file, as many as a header of NIfTI-1 has."""
    size = nibabel.Nifti1Header.sizeof_hdr
    compressed = str(file).lower().endswith(".gz")
    try:
        with open(file, "rb") as content:
            start = content.read(size)
        if compressed and start[:4] in HEADER_SIZES:
            raise ValueError("is not compressed, though its name ends in .gz: compress it with gzip, or name it .nii")
        if not compressed and start.startswith(GZIP):
            raise ValueError("is compressed, though its name does not end in .gz: name it .nii.gz")
        with (gzip.open if compressed else open)(file, "rb") as content:
            return content.read(size)
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"cannot be read ({getattr(error, 'strerror', None) or reason(error)})") from error


def _require_sound_transforms(header: nibabel.Nifti1Header) -> None:
    """Refuse NaN and infinity, which may make ITK hang, and a sheared sform, in place of which it takes the qform."""
    quaternion = [f"{part}_{axis}" for part, axes in (("quatern", "bcd"), ("qoffset", "xyz")) for axis in axes]
    for code, fields in (("qform_code", quaternion), ("sform_code", ["srow_x", "srow_y", "srow_z"])):
        numbers = np.hstack([header[field] for field in fields])
        if header[code] > 0 and not np.isfinite(numbers).all():
            raise ValueError(f"has NaN or infinity in its transform ({_text(numbers)}): correct its header")
    axes = header.get_sform()[:3, :3]
    lengths = np.linalg.norm(axes, axis=0)
    if header["sform_code"] in (1, 2) and lengths.all():  # 3 and 4 are those of a template
        _require_right_angles(axes / lengths, axes)


def _require_right_angles(cosines: np.ndarray, axes: np.ndarray) -> None:
    if not np.allclose(cosines.T @ cosines, np.eye(3), atol=RIGHT_ANGLE):
        raise _sheared(axes)


def _sheared(axes: np.ndarray) -> ValueError:
    return ValueError(
        f"has axes that are not at right angles ({_text(axes.ravel())}): resample it onto an orthogonal grid, for "
        "example with nibabel.processing.resample_to_output, or correct its header"
    )


def _text(values: tuple[float, ...] | np.ndarray) -> str:
    return ", ".join(f"{value:g}" for value in values)
