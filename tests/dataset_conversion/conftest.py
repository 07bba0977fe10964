"""Fixtures for converters: nnU-Net's own opinion of a dataset, and DICOM series."""

import locale

import pytest
import SimpleITK as sitk
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity


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
