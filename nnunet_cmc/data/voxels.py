"""The voxels of a volume file, or a sentence where a reader would fill a gap with zeros."""

import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.grid import NIFTI, reason


def read_voxels(file: str | PathLike) -> np.ndarray:
    """All voxels of a volume, in the file's own order of axes.

    ITK reads a NIfTI file that is shorter than its header says without a word, and a NaN in one as 0.

    Raises:
        ValueError: the file cannot be read, or is shorter than its header says.
    """
    try:
        if not str(file).endswith(NIFTI):
            return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
        return np.asanyarray(nibabel.load(file).dataobj)  # type: ignore[attr-defined]
    except (RuntimeError, OSError, EOFError, ValueError, zlib.error, nibabel.filebasedimages.ImageFileError) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error


def read_whole(file: str | PathLike) -> sitk.Image:
    """A volume with its geometry. ValueError: as :func:`read_voxels`."""
    read_voxels(file)
    try:
        return sitk.ReadImage(str(file))
    except RuntimeError as error:  # such as axes that nibabel takes and ITK does not
        raise ValueError(f"cannot be read ({reason(error)})") from error


def write_volume(image: sitk.Image, file: str | PathLike) -> None:
    """Write a compressed volume. OSError if not all of it could be written."""
    with _all_written(file):
        sitk.WriteImage(image, str(file), True)
        read_voxels(file)


def read_written(file: str | PathLike) -> sitk.Image:
    """The volume that has just been written. OSError if not all of it could be."""
    with _all_written(file):
        return read_whole(file)


@contextmanager
def _all_written(file: str | PathLike) -> Iterator[None]:
    """ITK does not notice when a NIfTI file fills the disk."""
    try:
        yield
    except (RuntimeError, ValueError) as error:
        raise OSError(
            None, "cannot be written, most likely for lack of space: free some, or choose another disk", str(file)
        ) from error
