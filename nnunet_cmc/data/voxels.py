"""The voxels of a volume file, or a sentence where a reader would fill a gap with zeros."""

import zlib
from collections.abc import Sequence
from os import PathLike

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.files import all_written
from nnunet_cmc.data.grid import is_nifti, read_grid, reason

NIBABEL = nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError
NOT_WRITTEN = RuntimeError, ValueError  # ITK does not notice when a NIfTI file fills the disk: reading it does


def read_voxels(file: str | PathLike) -> np.ndarray:
    """All voxels of a volume, in the file's own order of axes.

    ITK reads a NIfTI file that is shorter than its header says without a word, and a NaN in one as 0.

    Raises:
        ValueError: the file cannot be read, or is shorter than its header says.
    """
    try:
        if not is_nifti(file):
            return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        return np.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
    except (RuntimeError, OSError, EOFError, ValueError, OverflowError, zlib.error, *NIBABEL) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error
    except MemoryError as error:
        raise beyond_memory(read_grid(file).size) from error


def beyond_memory(size: Sequence[int]) -> ValueError:
    """What to raise in place of a MemoryError over a volume of this size."""
    return ValueError(f"cannot be read (its {' x '.join(map(str, size))} voxels are more than the memory holds)")


def count_not_finite(voxels: np.ndarray) -> int:
    """How many are NaN or infinite in single precision, which networks compute in."""
    if voxels.dtype.kind != "f":
        return 0
    with np.errstate(over="ignore"):
        return int(np.count_nonzero(~np.isfinite(voxels.astype(np.float32, copy=False))))


def write_volume(image: sitk.Image, file: str | PathLike) -> None:
    """Write a compressed volume. OSError if not all of it could be written."""
    with all_written(file, *NOT_WRITTEN):
        sitk.WriteImage(image, str(file), True)
        read_voxels(file)


def read_written(file: str | PathLike) -> sitk.Image:
    """The volume that has just been written. OSError if not all of it could be."""
    with all_written(file, *NOT_WRITTEN):
        read_voxels(file)
        return sitk.ReadImage(str(file))
