"""Volumes as converters meet them: NIfTI, NRRD and MetaImage files, and folders that hold one DICOM series."""

from collections.abc import Sequence
from os.path import basename
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data import voxels
from nnunet_cmc.data.grid import Grid, read_grid, reason

SUFFIXES = (".nii.gz", ".nii", ".nrrd", ".mha", ".mhd")


def volume_name(path: Path) -> str | None:
    """Name of a volume without its suffix; None where ``path`` is neither a volume file nor a DICOM folder."""
    if path.is_dir():
        return path.name if _series(path) else None
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), "")
    return path.name.removesuffix(suffix) if suffix else None


def volume_grid(source: Path) -> Grid:
    """Grid of a volume file or DICOM series, read from headers.

    Raises:
        ValueError: it cannot be read, is not one 3-D volume, or its geometry is degenerate.
    """
    if source.is_dir():
        image = read_image(source)
        if image.GetNumberOfComponentsPerPixel() != 1:
            raise ValueError(f"has {image.GetNumberOfComponentsPerPixel()} values a voxel: give a series with one")
        return Grid(image.GetSize(), image.GetSpacing(), image.GetOrigin(), image.GetDirection())
    return read_grid(source)


def read_image(source: Path) -> sitk.Image:
    """A volume file or DICOM series.

    Raises:
        ValueError: it cannot be read, or the folder does not hold exactly one complete series.
    """
    try:
        if source.is_dir():
            return sitk.ReadImage(_series_files(source))
        return sitk.ReadImage(str(source))
    except RuntimeError as error:
        raise ValueError(f"cannot be read ({reason(error)})") from error


def read_voxels(source: Path) -> np.ndarray:
    """All voxels of a volume file or DICOM series, in its own order of axes.

    Raises:
        ValueError: the source cannot be read, or is shorter than its header says.
    """
    return sitk.GetArrayFromImage(read_image(source)) if source.is_dir() else voxels.read_voxels(source)


def resample(image: sitk.Image, grid: Grid) -> sitk.Image:
    """``image`` on ``grid`` by world coordinates: linear, same pixel type, 0 where the grid leaves the image."""
    return sitk.Resample(
        image, grid.size, sitk.Transform(), sitk.sitkLinear, grid.origin, grid.spacing, grid.direction, 0.0
    )


def _series(folder: Path) -> Sequence[str]:
    return sitk.ImageSeriesReader.GetGDCMSeriesIDs(str(folder))


def _series_files(folder: Path) -> Sequence[str]:
    """Files of the only series in ``folder``, ordered along its slices, which must be whole and evenly spaced."""
    if not (series := _series(folder)):
        raise ValueError("holds no DICOM image")
    if len(series) > 1:
        raise ValueError(f"holds {len(series)} DICOM series, but must hold one: put each into a folder of its own")
    files = sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder), series[0])
    names = {basename(file) for file in files}
    suffixes = {Path(name).suffix for name in names}
    for file in sorted(folder.iterdir()):  # GDCM passes over what it cannot read
        if file.is_file() and file.suffix in suffixes and file.name not in {*names, "DICOMDIR"}:
            raise ValueError(f"holds {file.name}, which cannot be read as DICOM: copy it again, or remove it")
    positions = []
    for file in files:
        reader = sitk.ImageFileReader()
        reader.SetFileName(file)
        reader.ReadImageInformation()
        positions.append(reader.GetOrigin())
    steps = np.linalg.norm(np.diff(positions, axis=0), axis=1)
    # A missing slice doubles a step; a scanner's rounding does not come near to a tenth of it.
    if len(steps) and np.ptp(steps) > 0.1 * np.median(steps):
        worst = int(np.argmax(np.abs(steps - np.median(steps))))
        raise ValueError(
            f"is a DICOM series with uneven slices ({steps[worst]:.2f} mm after {basename(files[worst])}, "
            f"{np.median(steps):.2f} mm elsewhere): add the missing slices, or remove those that are there twice"
        )
    return files
