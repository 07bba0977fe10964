"""Fixtures for converters: nnU-Net's own opinion of a dataset, and DICOM series."""

import locale
from zlib import crc32

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity
from raw_datasets import SHAPE

from nnunet_cmc.dataset_conversion.case import Case

OBLIQUE = (0.8, -0.6, 0.0, 0.6, 0.8, 0.0, 0.0, 0.0, 1.0)


@pytest.fixture
def require_integrity(capfd):
    """``require_integrity(folder)``: nnU-Net's check of the dataset runs to its end without an error or a warning."""

    def require(folder):
        capfd.readouterr()
        verify_dataset_integrity(str(folder), 1)
        said = capfd.readouterr().out
        assert "verify_dataset_integrity Done" in said
        assert "rror:" not in said
        assert "arning" not in said

    return require


def _write_series(folder, array, spacing=(1.0, 1.5, 2.0), origin=(10.0, -20.0, 30.0), skip=()):
    """A DICOM series of ``array (D, H, W)`` int16 whose slices run along the patient's axis."""
    folder.mkdir(parents=True)
    before = locale.setlocale(locale.LC_ALL)  # writing DICOM leaves the process in the C locale
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number, plane in enumerate(array):
        if number in skip:
            continue
        image = sitk.GetImageFromArray(plane[None])
        image.SetSpacing(spacing)
        tags = {
            "0008|0016": "1.2.840.10008.5.1.4.1.1.2",
            "0008|0018": f"1.2.3.{len(folder.name)}.{number}",
            "0008|0060": "CT",
            "0020|000d": "1.2.3.1",
            "0020|000e": "1.2.3.1.1",
            "0020|0013": str(number),
            "0020|0032": f"{origin[0]}\\{origin[1]}\\{origin[2] + number * spacing[2]}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{9 - number}.dcm"))  # not in the order of the slices
        writer.Execute(image)
    locale.setlocale(locale.LC_ALL, before)
    return folder


@pytest.fixture
def write_series():
    """``write_series(folder, array (D, H, W) int16, spacing=..., origin=..., skip=...)``, in order x, y, z."""
    return _write_series


def _volume(file, array=None, spacing=(1.0, 1.5, 2.0), origin=(10.0, -20.0, 30.0), direction=OBLIQUE):
    if array is None:
        array = np.random.default_rng(crc32(str(file).encode())).integers(-500, 500, SHAPE).astype(np.int16)
    image = sitk.GetImageFromArray(array)
    if image.GetDimension() == 3:
        image.SetSpacing(spacing)
        image.SetOrigin(origin)
        image.SetDirection(direction)
    file.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(file), True)
    return file


def _label(file, values=(0, 1, 2), dtype=np.uint8, **geometry):
    return _volume(file, np.resize(np.array(values, dtype), SHAPE), **geometry)


@pytest.fixture
def pair(tmp_path):
    """Two labelled cases: one with CT and MR, one with CT alone."""
    source = tmp_path / "source"
    ct, mr = _volume(source / "a_ct.nii.gz"), _volume(source / "a_mr.nii.gz")
    return [
        Case("a", "a", {0: ct, 1: mr}, _label(source / "a.nii.gz")),
        Case("b", "p7", {0: _volume(source / "b_ct.nii.gz")}, _label(source / "b.nii.gz")),
    ]


@pytest.fixture
def volume():
    """``volume(file, array (D, H, W)=..., spacing=..., origin=..., direction=...)`` -> file, oblique by default."""
    return _volume


@pytest.fixture
def label():
    """``label(file, values, dtype)`` -> file of a label map that shows these values; geometry as ``volume``."""
    return _label


def _write_slices(folder, stored, **tags):
    folder.mkdir(parents=True, exist_ok=True)
    for number, plane in enumerate(stored):
        header = {
            "SOPClassUID": "1.2.840.10008.5.1.4.1.1.2",
            "SOPInstanceUID": f"1.2.3.4.{number + 1}",
            "StudyInstanceUID": "1.2.3.1",
            "SeriesInstanceUID": "1.2.3.1.1",
            "Modality": "CT",
            "InstanceNumber": number + 1,
            "ImagePositionPatient": [10, -20, 30 + 2 * number],
            "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
            "PixelSpacing": [1.5, 1.5],
            "SamplesPerPixel": 1,
            "PhotometricInterpretation": "MONOCHROME2",
            "BitsAllocated": 16,
            "BitsStored": 16,
            "HighBit": 15,
            "PixelRepresentation": int(plane.dtype.kind == "i"),
            **{tag: value for tag, value in tags.items() if not isinstance(value, dict)},
            **{tag: values[number] for tag, values in tags.items() if isinstance(values, dict) and number in values},
        }
        data = pydicom.Dataset()
        data.file_meta = pydicom.dataset.FileMetaDataset()
        data.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        data.Rows, data.Columns = plane.shape[:2]
        for tag, value in header.items():
            setattr(data, tag, value)
        data.PixelData = plane.tobytes()
        data.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


@pytest.fixture
def write_slices():
    """``write_slices(folder, planes, Tag=value, Tag={slice number: value})`` -> folder of a series, a file for each.

    Planes are (H, W) int16 or uint16, of 1.5 x 1.5 mm, 2 mm apart; tags are pydicom's names of them.
    """
    return _write_slices
