"""Volumes that converters read: NIfTI, NRRD and MetaImage files, and folders that hold one DICOM series."""

import glob
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel
import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.format.scan_folder import SCAN
from nnunet_cmc.data.reading import voxels
from nnunet_cmc.data.reading.grid import NIFTI, Grid, is_nifti2, read_grid, reason
from nnunet_cmc.dataset_conversion import dicom
from nnunet_cmc.utils.files import visible_below

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def suffix_of(path: Path) -> str:
    """Return the one of :data:`SUFFIXES` that a name ends in, in any case of letters; "" where there is none."""
    return next((suffix for suffix in SUFFIXES if path.name.lower().endswith(suffix)), "")


def case_insensitive_pattern(name: str) -> str:
    """Return a glob pattern for ``name`` with its suffix, if it has one, in any case of letters."""
    suffix = suffix_of(Path(name))
    letters = (f"[{letter}{letter.upper()}]" if letter.isalpha() else letter for letter in suffix)
    return glob.escape(name[: len(name) - len(suffix)]) + "".join(letters)


def volume_name(path: Path) -> str | None:
    """Return a volume's name without its suffix; None where ``path`` is neither a volume file nor a DICOM folder."""
    if path.is_dir():
        return path.name if dicom.find_series(path) else None
    suffix = suffix_of(path)
    return path.name[: -len(suffix)] if suffix else None


def describe_unread_scan(path: Path) -> str | None:
    """Return a sentence where ``path``, which is no volume, holds images, so that it must not be left out silently."""
    if not path.is_dir():
        if not _is_other_scan(path):
            return None
        return (
            f"{path} looks like a scan, but is neither a volume ({' '.join(SUFFIXES)}) nor a folder of one DICOM "
            "series: convert it to NIfTI, put its series into a folder of its own, or remove it."
        )
    for file in visible_below(path):
        if suffix_of(file) or _is_other_scan(file):
            return (
                f"{path} is no DICOM series, but holds images such as {file}: give the folder in which the files of "
                "one series themselves lie, or a volume."
            )
    return None


def volume_grid(source: Path) -> Grid:
    """Read the grid of a volume file or DICOM series from headers.

    Raises:
        ValueError: it cannot be read, is not one 3-D volume, or its geometry is degenerate.
    """
    with _readable(source) as file:
        if file.is_dir():
            return dicom.order_slices(file)[1]
        if not suffix_of(file) and dicom.is_dicom(file):
            dicom.read_slice(file)  # raises a more specific error
            raise ValueError("is one file of a DICOM series: give the folder that holds the series, and nothing else")
        return read_grid(file)


def pixel_type(source: Path) -> int:
    """Read SimpleITK's pixel type of a volume file."""
    with _readable(source) as file:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        return reader.GetPixelID()


def read_image(source: Path) -> sitk.Image:
    """Read a volume file or DICOM series.

    Raises:
        ValueError: it cannot be read, or the folder does not hold exactly one complete series.
    """
    with _readable(source) as file:
        return dicom.read_series(file) if file.is_dir() else sitk.ReadImage(str(file))


def read_voxels(source: Path) -> np.ndarray:
    """Read all voxels of a volume file or DICOM series, in its own order of axes.

    Raises:
        ValueError: the source cannot be read, or is shorter than its header says.
    """
    if source.is_dir():
        return sitk.GetArrayFromImage(read_image(source))
    with _readable(source) as file:
        return voxels.read_voxels(file)


def resample(image: sitk.Image, grid: Grid) -> sitk.Image:
    """Resample ``image`` onto ``grid`` by world coordinates: linear, same pixel type, 0 outside the image."""
    return sitk.Resample(
        image, grid.size, sitk.Transform(), sitk.sitkLinear, grid.origin, grid.spacing, grid.direction, 0.0
    )


def _is_other_scan(file: Path) -> bool:
    return bool(SCAN.fullmatch(file.name)) or dicom.is_dicom(file)


@contextmanager
def _readable(source: Path) -> Iterator[Path]:
    """Give ``source`` under a name and in a format that ITK reads: not NIfTI-2, nor a suffix in capitals."""
    suffix = "" if source.is_dir() else suffix_of(source)
    try:
        if suffix in NIFTI and is_nifti2(source):
            with TemporaryDirectory() as folder:
                yield _as_nifti1(source, Path(folder))
        elif not source.name.endswith(suffix):
            with TemporaryDirectory() as folder:
                name = source.name[: -len(suffix)]
                for voxel_file in source.parent.glob(f"{glob.escape(name)}.*raw"):  # of .MHD
                    Path(folder, voxel_file.name).symlink_to(voxel_file.resolve())
                file = Path(folder, name + suffix)
                file.symlink_to(source.resolve())
                yield file
        else:
            yield source
    except (RuntimeError, *voxels.NIBABEL) as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error


def _as_nifti1(source: Path, folder: Path) -> Path:
    """Write the volume as NIfTI-1 to a file in ``folder``, with unchanged transforms."""
    array = voxels.read_voxels(source)
    image = nibabel.Nifti1Image(array, None, nibabel.load(source).header, dtype=array.dtype)
    nibabel.save(image, file := folder / "volume.nii")
    return file
