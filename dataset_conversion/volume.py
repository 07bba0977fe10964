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
from nnunet_cmc.data.reading.grid import NIFTI, Grid, is_for_itk, read_grid, reason
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
    files = visible_below(path) if path.is_dir() else [path]
    scan = next((f for f in files if suffix_of(f) or SCAN.fullmatch(f.name) or dicom.is_dicom(f)), None)
    if scan is None:
        return None
    if scan != path:
        return (
            f"{path} is no DICOM series, but holds images such as {scan}: give the folder in which the files of one "
            "series themselves lie, or a volume."
        )
    return (
        f"{path} looks like a scan, but is neither a volume ({' '.join(SUFFIXES)}) nor a folder of one DICOM series: "
        "convert it to NIfTI, put its series into a folder of its own, or remove it."
    )


def volume_grid(source: Path) -> Grid:
    """Read the grid from headers. ValueError: they cannot be read, or are not of one 3-D volume with a sound grid."""
    with _readable(source) as file:
        if file.is_dir():
            return dicom.order_slices(file)[1]
        if not suffix_of(file) and dicom.is_dicom(file):
            dicom.read_slice(file)  # raises a more specific error
            raise ValueError("is one file of a DICOM series: give the folder that holds the series, and nothing else")
        return read_grid(file)


def has_label_type(source: Path) -> bool:
    """Tell whether the voxels of a volume file are uint8 or uint16, as labels of a dataset."""
    with _readable(source) as file:
        reader = sitk.ImageFileReader()
        reader.SetFileName(str(file))
        reader.ReadImageInformation()
        return reader.GetPixelID() in (sitk.sitkUInt8, sitk.sitkUInt16)


def volume_image(source: Path) -> sitk.Image:
    """Read a volume file or DICOM series. ValueError: it cannot be read, or is not exactly one complete series."""
    with _readable(source) as file:
        return dicom.read_series(file) if file.is_dir() else sitk.ReadImage(str(file))


def volume_voxels(source: Path) -> np.ndarray:
    """Read all voxels in the source's own order of axes. ValueError: it is unreadable, or shorter than it says."""
    if source.is_dir():
        return sitk.GetArrayFromImage(volume_image(source))
    with _readable(source) as file:
        return voxels.read_voxels(file)


def resample(image: sitk.Image, grid: Grid, interpolator: int = sitk.sitkLinear) -> sitk.Image:
    """Resample ``image`` onto ``grid`` by world coordinates: same pixel type, 0 outside the image."""
    return sitk.Resample(image, grid.size, sitk.Transform(), interpolator, grid.origin, grid.spacing, grid.direction, 0)


@contextmanager
def _readable(source: Path) -> Iterator[Path]:
    """Give ``source`` as ITK reads it: with no suffix in capitals, and only if :func:`is_for_itk`."""
    suffix = "" if source.is_dir() else suffix_of(source)
    try:
        if suffix in NIFTI and not is_for_itk(source):
            array = voxels.read_voxels(source)
            image = nibabel.Nifti1Image(array, None, nibabel.load(source).header, dtype=array.dtype)
            with TemporaryDirectory() as folder:
                nibabel.save(image, file := Path(folder, "volume.nii"))
                yield file
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
