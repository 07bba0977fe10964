"""Reading volumes with an error where ITK would read zeros, and writing them with an error if incomplete."""

import zlib
from collections.abc import Sequence
from os import PathLike

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.reading.grid import is_nifti, read_grid, reason
from nnunet_cmc.utils.files import all_written
from nnunet_cmc.utils.formatting import dimensions

NIBABEL = nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError
NOT_WRITTEN = RuntimeError, ValueError  # ITK does not notice when a NIfTI file fills the disk: reading it does


def read_voxels(file: str | PathLike) -> np.ndarray:
    """Read all voxels in the file's own order of axes. ValueError: it is unreadable, or shorter than its header says.

    ITK would silently read missing voxels and NaN of a NIfTI file as 0.
    """
    try:
        if not is_nifti(file):
            return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        return np.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
    except (RuntimeError, OSError, EOFError, ValueError, OverflowError, zlib.error, *NIBABEL) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error
    except MemoryError as error:
        raise out_of_memory(read_grid(file).size) from error


def read_image(file: str | PathLike) -> sitk.Image:
    """Read a 3-D volume, float64 as float32. ValueError: see :func:`read_voxels` and :func:`read_grid`."""
    grid, voxels = read_grid(file), read_voxels(file)
    if is_nifti(file):  # (W, H, D), of which the last may be followed by axes of one voxel
        voxels = voxels.reshape(grid.size, order="F").T
    dtype = np.dtype(np.float32) if voxels.dtype.kind == "f" else voxels.dtype.newbyteorder("=")
    with np.errstate(over="ignore"):  # values beyond single precision become infinite
        voxels = voxels.astype(dtype, copy=False)
    return grid.place(sitk.GetImageFromArray(voxels))


def out_of_memory(size: Sequence[int]) -> ValueError:
    """Make the error to raise in place of a MemoryError over a volume of this size."""
    return ValueError(f"cannot be read (out of memory: it has {dimensions(size)} voxels)")


def count_not_finite(voxels: np.ndarray) -> int:
    """Count the voxels that are NaN or infinite in single precision, the precision of networks."""
    if voxels.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore"):
        return int(np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False))))


def write_volume(image: sitk.Image, file: str | PathLike) -> None:
    """Write a compressed volume. OSError if not all of it could be written."""
    with all_written(file, *NOT_WRITTEN):
        sitk.WriteImage(image, str(file), True)
        read_voxels(file)


def format_value(value: float) -> str:
    """Format a voxel's value with as few digits as identify it in single precision: 7, 1e+38, 1.0000001."""
    short = f"{value:g}"
    return short if np.float32(short) == np.float32(value) else f"{value:.9g}"
