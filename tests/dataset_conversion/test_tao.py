"""TAO from a miniature of the folders that its converter documents."""

import json

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.Dataset503_TAO import CLASSES, convert_tao

SHAPES = {"T1": (4, 8, 9), "T1c": (5, 10, 10)}


@pytest.fixture
def make_patients(tmp_path, write_volume):
    """``make_patients(10, unlabelled=[3])``: folders of patients with T1 and T1c on different grids."""

    def make(count, unlabelled=()):
        root = tmp_path / "tao"
        for number in range(1, count + 1):
            folder = root / f"patient_{number:02d}"
            for modality, shape in SHAPES.items():
                geometry = {"spacing": (0.6, 0.6, 3.0) if modality == "T1" else (0.5, 0.5, 2.0)}
                scan = np.random.default_rng(number).integers(1, 500, shape).astype(np.int16)
                write_volume(folder / f"{modality}.nii.gz", scan, **geometry)
                if number not in unlabelled:
                    write_volume(
                        folder / f"{modality}_label.nii.gz", np.resize(np.arange(9, dtype=np.uint8), shape), **geometry
                    )
        return root

    return make


def names(folder):
    return sorted(file.name.removesuffix(".nii.gz") for file in folder.iterdir())


def test_a_case_for_each_scan_and_a_fifth_for_testing(make_patients, nnunet_folders, require_integrity, capfd):
    root = make_patients(12, unlabelled=[3, 4])
    folder = convert_tao(root, seed=5)
    said = capfd.readouterr().out
    dataset_json = json.loads((folder / "dataset.json").read_text())
    subjects = dataset_json["cmc"]["subjects"]
    test = {subjects[case] for case in names(folder / "labelsTs")}
    assert f"Drawn with seed 5 for testing: {', '.join(sorted(test))}." in said
    assert len(test) == 2
    assert len(names(folder / "labelsTr")) == 16
    unlabelled = [f"patient_{n}_{m}" for n in ("03", "04") for m in ("T1_0000", "T1c_0001")]
    assert names(folder / "imagesUn") == unlabelled
    assert test.isdisjoint(subjects[case] for case in names(folder / "labelsTr"))
    assert subjects["patient_03_T1"] == subjects["patient_03_T1c"] == "patient_03"
    assert list(dataset_json["labels"]) == ["background", "LG", "ON", "IOM", "SOM", "SR", "LR", "MR", "IR"]
    assert dataset_json["labels"] == {"background": 0, **CLASSES}
    require_integrity(folder)
    again = convert_tao(root, 504, seed=5)
    assert names(again / "labelsTs") == names(folder / "labelsTs")


def test_a_dicom_series_of_a_patient(make_patients, nnunet_folders, write_series):
    root = make_patients(2)
    array = np.random.default_rng(1).integers(0, 900, SHAPES["T1"]).astype(np.int16)
    (root / "patient_01" / "T1.nii.gz").unlink()
    series = write_series(root / "patient_01" / "T1", array, spacing=(0.6, 0.6, 3.0), origin=(0.0, 0.0, 0.0))
    grid = sitk.ReadImage(sitk.ImageSeriesReader.GetGDCMSeriesFileNames(str(series)))
    label = sitk.GetImageFromArray(np.resize(np.arange(9, dtype=np.uint8), SHAPES["T1"]))
    label.CopyInformation(grid)
    sitk.WriteImage(label, str(root / "patient_01" / "T1_label.nii.gz"))
    folder = convert_tao(root)
    written = sitk.ReadImage(str(folder / "imagesTr" / "patient_01_T1_0000.nii.gz"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(written), array)


def test_a_dicom_series_further_down(make_patients, nnunet_folders, write_series):
    root = make_patients(2)
    (root / "patient_01" / "T1.nii.gz").unlink()
    (root / "patient_01" / "T1_label.nii.gz").unlink()
    write_series(root / "patient_01" / "T1" / "series", np.ones(SHAPES["T1"], np.int16))
    with pytest.raises(
        ValueError, match=r"patient_01/T1 is no DICOM series, but holds images such as .*/series/6\.dcm"
    ):
        convert_tao(root)


def test_folders_that_make_no_sense(make_patients, nnunet_folders, tmp_path, capsys):
    root = make_patients(3)
    (root / "notes").mkdir()
    (root / "patient_01" / "report.pdf").touch()
    (root / "patient_02" / "T1c.nii.gz").unlink()
    with pytest.raises(ValueError, match=r"patient_02/T1c_label.nii.gz is a label without a scan"):
        convert_tao(root)
    (root / "patient_02" / "T1c_label.nii.gz").unlink()
    convert_tao(root, dry_run=True)
    said = capsys.readouterr().out
    assert f"Left out, not a patient's folder with T1 or T1c in it: {root / 'notes'} (1)" in said
    assert f"{root / 'patient_01' / 'report.pdf'} (1)" in said
    (root / "patient_01" / "T1.nii").touch()
    with pytest.raises(ValueError, match=r"T1.nii and .*T1.nii.gz are both T1 of patient_01"):
        convert_tao(root)
    with pytest.raises(ValueError, match="has no folder with T1 or T1c in it"):
        convert_tao(root / "notes")
    with pytest.raises(ValueError, match="There is no folder"):
        convert_tao(tmp_path / "none")
