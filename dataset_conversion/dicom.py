"""Reading a folder of DICOM slices as one volume; what differs between slices is refused, or applied to each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import SimpleITK as sitk
from numpy.typing import ArrayLike

from nnunet_cmc.data.reading.grid import RIGHT_ANGLE, TOLERANCE, Grid
from nnunet_cmc.utils.files import visible, visible_below

GDCM = "GDCMImageIO"
POSITION, ORIENTATION, SPACING, SLOPE = "0020|0032", "0020|0037", "0028|0030", "0028|1053"
GEOMETRY = {POSITION: "position", ORIENTATION: "orientation", SPACING: "pixel spacing"}
# tags that define the meaning of a voxel's value, equal in all slices of a volume
MEANING = {"0028|0004": "photometric interpretation", "0028|1054": "rescale type", "0054|1001": "units"}


class Slice(NamedTuple):
    """Header of a file with one slice: its grid (W, H, 1 voxels), and the tags of :data:`MEANING`."""

    file: Path
    grid: Grid
    components: int
    meaning: dict[str, str]


def is_dicom(file: Path) -> bool:
    """Tell whether a file is DICOM by its content."""
    return sitk.ImageFileReader.GetImageIOFromFileName(str(file)) == GDCM


def find_series(folder: Path) -> list[list[Path]]:
    """Find the files of each DICOM series in ``folder`` itself; names that begin with a dot are ignored."""
    if not any(file.is_file() and is_dicom(file) for file in visible(folder)):  # of which GDCM would warn on the screen
        return []
    reader = sitk.ImageSeriesReader
    names = [reader.GetGDCMSeriesFileNames(str(folder), uid) for uid in reader.GetGDCMSeriesIDs(str(folder))]
    series = [[file for file in map(Path, files) if not file.name.startswith(".")] for files in names]
    return [files for files in series if files]


def read_slice(file: Path) -> Slice:
    """Read the header of a DICOM file. ValueError if it is not of one slice, or its geometry or slope is unusable."""
    reader = sitk.ImageFileReader()
    reader.SetImageIO(GDCM)
    reader.SetFileName(str(file))
    reader.ReadImageInformation()
    tags = {key: reader.GetMetaData(key).strip() for key in reader.GetMetaDataKeys()}
    width, height, frames = reader.GetSize()
    direction = np.reshape(reader.GetDirection(), (3, 3))
    if frames > 1:
        raise ValueError(
            f"holds {file.name}, a multi-frame DICOM file of {frames} frames, each of which may have a position and a "
            "rescale of its own: convert it to NIfTI, for example with dcm2niix, and give that"
        )
    if float(tags.get(SLOPE) or 1) == 0:  # for which GDCM takes 1
        raise ValueError(f"holds {file.name}, which has a rescale slope of 0: correct its header")
    x, y, _ = reader.GetSpacing()
    _require_understood(file, tags, {POSITION: reader.GetOrigin(), ORIENTATION: direction[:, :2].T, SPACING: (y, x)})
    grid = Grid((width, height, 1), (x, y, min(x, y)), reader.GetOrigin(), reader.GetDirection())
    return Slice(file, grid, reader.GetNumberOfComponents(), {name: tags.get(tag, "") for tag, name in MEANING.items()})


def order_slices(folder: Path) -> tuple[list[Path], Grid]:
    """Return the files of the only series in ``folder``, in the slice order, and the volume's grid, from headers.

    ValueError: there is not one whole series, or its slices do not make a rectangular volume of one kind.
    """
    slices = [read_slice(file) for file in _only_series(folder)]
    _require_one_kind(slices)
    grid = slices[0].grid
    normal = np.reshape(grid.direction, (3, 3))[:, 2]
    slices.sort(key=lambda own: np.dot(own.grid.origin, normal))
    origins = np.array([own.grid.origin for own in slices])
    along = (origins - origins[0]) @ normal
    step = _require_even(slices, along) if len(slices) > 1 else grid.spacing[2]
    drift = np.linalg.norm(origins - origins[0] - np.outer(along, normal), axis=1)
    if (drift > np.maximum(TOLERANCE * min(grid.spacing), RIGHT_ANGLE * along)).any():
        raise ValueError(
            f"is a DICOM series whose slices are not stacked along their normal ({drift.max():.2f} mm off between "
            f"{slices[0].file.name} and {slices[int(drift.argmax())].file.name}, as with a tilted gantry): "
            "resample it onto an orthogonal grid, for example with dcm2niix, which corrects a tilted gantry, and give "
            "that"
        )
    size, spacing = (*grid.size[:2], len(slices)), (*grid.spacing[:2], step)
    return [own.file for own in slices], Grid(size, spacing, slices[0].grid.origin, grid.direction)


def read_series(folder: Path) -> sitk.Image:
    """Read the volume, each slice rescaled by its own slope and intercept. ValueError: see :func:`order_slices`.

    Integers stay integers, of a type that holds those of all slices; what is not whole becomes float32.
    """
    files, grid = order_slices(folder)
    voxels = np.concatenate([sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO=GDCM)) for file in files])
    return grid.place(sitk.GetImageFromArray(voxels.astype(np.float32) if voxels.dtype.kind == "f" else voxels))


def _require_understood(file: Path, tags: Mapping[str, str], understood: Mapping[str, ArrayLike]) -> None:
    """Refuse a geometry that GDCM replaces, such as an invalid orientation by the identity."""
    if not any(tags.get(tag) for tag in GEOMETRY):  # an enhanced file with a frame has it elsewhere
        return
    for tag, name in GEOMETRY.items():
        values = [float(value) for value in tags.get(tag, "").split("\\") if value]
        expected = np.ravel(understood[tag])
        usable = len(values) == len(expected) and np.allclose(values, expected, atol=1e-3)
        if not usable or (tag == SPACING and min(values) <= 0):
            found = tags.get(tag) or "there is none"
            raise ValueError(f"holds {file.name}, whose {name} cannot be used ({found}): correct its header")


def _only_series(folder: Path) -> list[Path]:
    series = find_series(folder)
    if not series:
        raise ValueError("holds no DICOM image: give the folder in which the files of the series themselves lie")
    if len(series) > 1:
        raise ValueError(f"holds {len(series)} DICOM series, but must hold one: put each into a folder of its own")
    (files,) = series

    def ending(file: Path) -> str:
        return "" if file.suffix[1:].isdecimal() else file.suffix.lower()  # IM.0001 ends in a number

    endings = set(map(ending, files))
    for file in visible(folder):  # GDCM passes over what it cannot read
        if file.is_file() and ending(file) in endings and file not in files and file.name.upper() != "DICOMDIR":
            raise ValueError(f"holds {file.name}, which cannot be read as DICOM: copy it again, or remove it")
        if file.is_dir() and (more := next(filter(is_dicom, visible_below(file)), None)):
            raise ValueError(f"holds a DICOM series and, further down, {more}: give the folder of one series alone")
    return files


def _require_one_kind(slices: Sequence[Slice]) -> None:
    first = slices[0]
    if first.components != 1:
        raise ValueError(f"has {first.components} values a voxel: give a series with one")
    for own in slices[1:]:
        differences = own.grid._replace(origin=first.grid.origin).differences(first.grid)
        differences += [
            f"{name} {meaning or 'none'} instead of {first.meaning[name] or 'none'}"
            for name, meaning in own.meaning.items()
            if meaning != first.meaning[name]
        ]
        if own.components != first.components:
            differences.append(f"{own.components} values a voxel instead of {first.components}")
        if differences:
            raise ValueError(
                f"is a DICOM series whose slices differ ({own.file.name} from {first.file.name}: "
                f"{', '.join(differences)}): leave only slices of one kind in the folder"
            )


def _require_even(slices: Sequence[Slice], along: np.ndarray) -> float:
    """Return the step between slices in mm; ``along`` are their positions on the normal. ValueError if uneven."""
    steps = np.diff(along)
    if steps.min() < 1e-4:
        twice = int(steps.argmin())
        raise ValueError(
            f"is a DICOM series with several slices at one position ({slices[twice].file.name} and "
            f"{slices[twice + 1].file.name}): leave one time point, one echo and one copy of each slice in the folder"
        )
    # A missing slice doubles a step; a scanner's rounding does not come near to a tenth of it.
    step = along[-1] / len(steps)
    off = np.abs(along - step * np.arange(len(along))).max()
    if max(np.ptp(steps), off) > TOLERANCE * np.median(steps):
        worst = int(np.argmax(np.abs(steps - np.median(steps))))
        raise ValueError(
            f"is a DICOM series with uneven slices ({steps[worst]:.2f} mm after {slices[worst].file.name}, "
            f"{np.median(steps):.2f} mm elsewhere): add the missing slices, or remove those that are there twice"
        )
    return float(step)
