"""What is shown of the cases that systems are evaluated on."""

import json
import os

import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.raw_case import read_case, shown_channels
from nnunet_cmc.evaluation.evaluated_cases import labeled_test_cases, lay_out, pool, validation_cases, validation_fold
from nnunet_cmc.evaluation.results import CaseResult, Evaluation

VOLUME = np.arange(1.0, 28.0, dtype=np.float32).reshape(3, 3, 3)
LABEL = np.eye(3, dtype=np.uint8)[None].repeat(3, 0)


@pytest.fixture
def raw(make_dataset, write_volume):
    """A labelled case in both modalities, one in MR alone; of the test cases, one with an MR of zeros, one without."""
    folder = make_dataset({"a": ({0: VOLUME, 1: 2 * VOLUME}, LABEL), "b": ({1: VOLUME}, LABEL)})
    write_volume(folder / "imagesTs" / "x_0000.nii.gz", VOLUME)
    write_volume(folder / "imagesTs" / "x_0001.nii.gz", 0 * VOLUME)  # nothing says so in dataset.json
    write_volume(folder / "imagesTs" / "unlabelled_0000.nii.gz", VOLUME)
    return folder


def description(raw, **cmc):
    content = json.loads((raw / "dataset.json").read_text())
    content["cmc"] |= cmc
    (raw / "dataset.json").write_text(json.dumps(content))
    return DatasetDescription.read(raw / "dataset.json")


def test_each_modality_alone_and_all_of_a_case(raw, tmp_path, write_volume):
    (raw / "splits_final.json").write_text(json.dumps([{"train": [], "val": []}, {"train": ["c"], "val": ["a", "b"]}]))
    dataset = description(raw, subjects={"a": "patient"})
    evaluated = lay_out(validation_cases(raw, validation_fold(raw, "1"), dataset), dataset, tmp_path / "out")
    shown = {"a_CT": (0,), "a_MR": (1,), "a_CT+MR": (0, 1), "b_MR": (1,)}
    assert evaluated.description.present_channels == shown
    assert {name: evaluated.description.subject_of(name) for name in shown} == {
        "a_CT": "patient", "a_MR": "patient", "a_CT+MR": "patient", "b_MR": "b",
    }  # fmt: skip
    files = [evaluated.images / f"{name}_{channel:04d}.nii.gz" for name in shown for channel in (0, 1)]
    assert sorted(evaluated.images.iterdir()) == sorted(files), "stock nnU-Net needs a file of every channel"
    for name, channels in shown.items():
        data, _ = read_case([str(file) for file in files if file.name[:-12] == name], dataset)
        assert shown_channels(data) == list(channels)
        label = sitk.GetArrayFromImage(sitk.ReadImage(str(evaluated.labels / f"{name}.nii.gz")))
        assert np.array_equal(label, LABEL)
    np.testing.assert_array_equal(read_case([str(file) for file in files[4:6]], dataset)[0], [VOLUME, 2 * VOLUME])


def test_test_cases_are_those_with_labels(raw, tmp_path, write_volume):
    assert labeled_test_cases(raw, description(raw)) == {}
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    cases = labeled_test_cases(raw, description(raw))
    assert list(cases) == ["x"]
    assert lay_out(cases, description(raw), tmp_path / "out").description.present_channels == {"x_CT": (0,)}
    write_volume(raw / "labelsTs" / "y.nii.gz", LABEL)
    with pytest.raises(ValueError, match=r"Case y of .*labelsTs has no scan in .*imagesTs \(1 in all\): add the"):
        labeled_test_cases(raw, description(raw))


def test_a_folder_is_taken_again_for_the_same_cases_only(raw, tmp_path, write_volume):
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    cases = labeled_test_cases(raw, description(raw))
    evaluated = lay_out(cases, description(raw), tmp_path / "out")
    before = {file: file.lstat().st_mtime_ns for file in evaluated.images.iterdir()}
    assert lay_out(cases, description(raw), tmp_path / "out") == evaluated
    assert {file: file.lstat().st_mtime_ns for file in evaluated.images.iterdir()} == before
    write_volume(raw / "labelsTs" / "other.nii.gz", LABEL)
    scan = raw / "imagesTs" / "other" / "x_0000.nii.gz"
    write_volume(scan, VOLUME)
    files, label = cases["x"]
    for others in (
        {**cases, "z": cases["x"]},
        {"x": (files, raw / "labelsTs" / "other.nii.gz")},
        {"x": ([str(scan), files[1]], label)},
    ):
        with pytest.raises(ValueError, match="out holds other cases than are to be evaluated now: name another folder"):
            lay_out(others, description(raw), tmp_path / "out")
    (tmp_path / "out" / "files.json").unlink()
    with pytest.raises(ValueError, match="out holds other cases than are to be evaluated now: name another folder"):
        lay_out(cases, description(raw), tmp_path / "out")


def test_scans_that_were_replaced_are_laid_out_anew(raw, tmp_path, write_volume):
    """So that the folder is newer than their predictions, and zeros stand on their grid."""
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    cases = labeled_test_cases(raw, description(raw))
    before = lay_out(cases, description(raw), tmp_path / "out").images.stat().st_mtime_ns
    scan = raw / "imagesTs" / "x_0000.nii.gz"
    for channel in (0, 1):
        write_volume(raw / "imagesTs" / f"x_{channel:04d}.nii.gz", (1 - channel) * VOLUME[:2])
    os.utime(scan, ns=(before - 10**12, before - 10**12))  # an older file that was moved there
    images = lay_out(cases, description(raw), tmp_path / "out").images
    assert images.stat().st_mtime_ns > before
    assert sitk.ReadImage(str(images / "x_CT_0001.nii.gz")).GetSize() == (3, 3, 2)


def test_what_cannot_be_evaluated(raw, tmp_path, write_volume):
    dataset = description(raw)
    with pytest.raises(ValueError, match="fold 0 no validation cases of its own to evaluate on instead: make folds"):
        validation_cases(raw, validation_fold(raw, "0"), dataset)
    (raw / "splits_final.json").write_text(json.dumps([{"train": ["a"], "val": ["gone"]}]))
    with pytest.raises(ValueError, match="fold all no validation cases"):
        validation_cases(raw, validation_fold(raw, "all"), dataset)
    with pytest.raises(ValueError, match=r"Case gone of splits_final.json is not in"):
        validation_cases(raw, validation_fold(raw, "0"), dataset)
    write_volume(raw / "imagesTs" / "x_0000.nii.gz", 0 * VOLUME)
    write_volume(raw / "labelsTs" / "x.nii.gz", LABEL)
    with pytest.raises(ValueError, match=r"Case x is empty: all voxels of .*x_0000.nii.gz.* are zero; replace"):
        lay_out(labeled_test_cases(raw, description(raw)), description(raw), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_folds_are_pooled_case_by_case():
    def evaluation(dice):
        return Evaluation({"liver": 1}, 2.0, [CaseResult("a_CT", "CT", "", "", {"liver": {"Dice": dice}})], [])

    one = evaluation(0.5)
    assert pool({"3": one}) == one
    both = pool({"0": one, "1": evaluation(0.7)})
    assert [case.case for case in both.cases] == ["a_CT, fold 0", "a_CT, fold 1"]
    assert both.statistic("liver", "Dice").mean == pytest.approx(0.6)
