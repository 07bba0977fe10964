"""Folder against folder: modalities, spacing, regions, worker processes, and every refusal."""

import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.grid import read_grid
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.label_maps import NOT_STATED, classes_of, modalities_of
from nnunet_cmc.evaluation.metrics import compute_metrics


def test_every_case_and_class_is_evaluated_at_its_own_spacing(folders, dataset_json, blocks):
    evaluation = evaluate_folder(*folders, dataset_json)
    assert [(case.case, case.modalities) for case in evaluation.cases] == [
        ("a", "CT"), ("b", "MR"), ("c", "CT+MR"), ("d", "CT")
    ]  # fmt: skip
    assert evaluation.classes == {"liver": 1, "spleen": 2}
    expected = compute_metrics(blocks() == 1, blocks(2) == 1, spacing=(3, 1.5, 1))  # SimpleITK's spacing is x, y, z
    assert evaluation.cases[2].metrics["liver"] == pytest.approx(expected)
    assert np.isnan(evaluation.cases[1].metrics["spleen"]["Dice"])
    assert evaluation.cases[3].metrics["spleen"]["Dice"] == 0


def test_worker_processes_change_nothing(folders, dataset_json):
    alone, parallel = (evaluate_folder(*folders, dataset_json, processes=n) for n in (1, 2))
    assert repr(alone) == repr(parallel)  # NaN is not equal to itself


def test_some_of_the_cases(folders, dataset_json):
    evaluation = evaluate_folder(*folders, dataset_json, cases=["d", "b"])
    assert [case.case for case in evaluation.cases] == ["b", "d"]
    assert evaluation.without_reference == []
    with pytest.raises(ValueError, match=r"labelsTs has no label map of typo: correct cases\."):
        evaluate_folder(*folders, dataset_json, cases=["a", "typo"])


@pytest.mark.parametrize("steps", [4, 5])
def test_a_distance_that_equals_the_tolerance_is_within_it(tmp_path, dataset_json, write_labels, blocks, steps):
    """Files have single precision: five voxels of 0.4 mm are 2.00000003 mm."""
    for name, labels in {"r": blocks(), "p": np.roll(blocks(), steps, 2)}.items():
        write_labels(tmp_path / name / "a.nii.gz", np.pad(labels, 5), spacing=(0.4, 0.4, 0.4))
    evaluation = evaluate_folder(tmp_path / "r", tmp_path / "p", dataset_json)
    assert evaluation.cases[0].metrics["liver"]["NSD"] == 1
    below = evaluate_folder(tmp_path / "r", tmp_path / "p", dataset_json, tolerance=0.4 * steps - 0.01)
    assert below.cases[0].metrics["liver"]["NSD"] < 1
    with pytest.raises(ValueError, match="The tolerance of NSD is nan: give a number of mm from 0 on"):
        evaluate_folder(tmp_path / "r", tmp_path / "none", dataset_json, tolerance=np.nan)


def test_predictions_without_reference_are_named(folders, dataset_json, write_labels, blocks):
    write_labels(folders[1] / "extra.nii.gz", blocks())
    evaluation = evaluate_folder(*folders, dataset_json)
    assert evaluation.without_reference == ["extra"]
    assert len(evaluation.cases) == 4


def test_modalities_come_from_the_cmc_key(dataset_json):
    description = DatasetDescription.from_dict(dataset_json)
    assert modalities_of(description, "c") == "CT+MR"
    assert modalities_of(description, "new_case") == NOT_STATED


def test_regions_and_ignore_label_as_nnunet_keys_them(dataset_json):
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    for labels, order in (
        ({"background": 0, "whole": [1, 2, 3], "core": [2, 3], "enhancing": 3, "ignore": 4}, [1, 2, 3]),
        ({"background": 0, "liver": 1, "spleen": [2], "ignore": 3}, None),
        ({"background": 0, "liver": 1}, None),
    ):
        manager = LabelManager(labels, order)
        keys = manager.foreground_regions if manager.has_regions else manager.foreground_labels
        classes, ignore = classes_of(DatasetDescription.from_dict({**dataset_json, "labels": labels}))
        assert (list(classes.values()), ignore) == (list(keys), manager.ignore_label)


def test_a_region_is_the_union_of_its_labels_and_ignored_voxels_do_not_count(tmp_path, write_labels, blocks):
    reference = blocks()
    reference[0] = 3
    prediction = blocks()
    prediction[0] = 1
    prediction[prediction == 2] = 1
    for name, labels in (("r", reference), ("p", prediction)):
        write_labels(tmp_path / name / "x.nii.gz", labels)
    labels = {"background": 0, "both": [1, 2], "spleen": 2, "ignore": 3}
    dataset_json = {"labels": labels, "channel_names": {"0": "CT"}, "file_ending": ".nii.gz"}
    metrics = evaluate_folder(tmp_path / "r", tmp_path / "p", dataset_json).cases[0].metrics
    assert (metrics["both"]["Dice"], metrics["both"]["ASSD"]) == (1, 0)
    assert metrics["spleen"]["Dice"] == 0


def refusal(folders, dataset_json):
    with pytest.raises(ValueError) as caught:
        evaluate_folder(*folders, dataset_json)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_missing_predictions_are_listed(folders, dataset_json):
    for case in "bd":
        (folders[1] / f"{case}.nii.gz").unlink()
    text = refusal(folders, dataset_json)
    assert str(folders[1]) in text
    assert "2 of 4 reference cases: b, d;" in text


@pytest.mark.parametrize(
    ("geometry", "found"),
    [
        ({"spacing": (1, 1.5, 3.03)}, "spacing (1.0, 1.5, 3.03) instead of (1.0, 1.5, 3.0)"),
        ({"origin": (5, -7, 3)}, "origin (5.0, -7.0, 3.0) instead of (5.0, -7.0, 2.0)"),
        (
            {"direction": (-1, 0, 0, 0, -1, 0, 0, 0, 1)},
            "direction (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0, 1.0) inst",
        ),
    ],
)
def test_another_grid_is_refused(folders, dataset_json, write_labels, blocks, geometry, found):
    write_labels(folders[1] / "c.nii.gz", blocks(), **geometry)
    text = refusal(folders, dataset_json)
    reference, prediction = (folder / "c.nii.gz" for folder in folders)
    assert text.startswith(f"Case c: {prediction} is not on the grid of {reference} ({found}")
    assert text.endswith("): bring the prediction onto the grid of the reference.")


@pytest.mark.parametrize(
    "geometry",
    [
        {"origin": (5.005, -7, 2)},
        {"origin": (5.09, -7, 2)},
        {"origin": (5.0 + 2e-5, -7, 2), "spacing": (1.000004, 1.5, 3)},  # as NIfTI headers round
    ],
)
def test_a_tenth_of_a_voxel_is_one_grid_here_as_everywhere(folders, dataset_json, write_labels, blocks, geometry):
    write_labels(folders[1] / "c.nii.gz", blocks(), **geometry)
    assert read_grid(folders[1] / "c.nii.gz").differences(read_grid(folders[0] / "c.nii.gz")) == []
    assert evaluate_folder(*folders, dataset_json).cases[2].metrics["liver"]["Dice"] == 1


def test_another_size_is_refused(folders, dataset_json, write_labels, blocks):
    write_labels(folders[1] / "a.nii.gz", blocks()[:-1])
    assert "(size (14, 12, 5) instead of (14, 12, 6))" in refusal(folders, dataset_json)


@pytest.mark.parametrize("where", [0, 1])
def test_unknown_label_values_are_refused(folders, dataset_json, write_labels, blocks, where):
    labels = blocks()
    labels[0, 0, :2] = 7, 9
    write_labels(folders[where] / "d.nii.gz", labels)
    text = refusal(folders, dataset_json)
    assert f"Case d: {folders[where] / 'd.nii.gz'} has the label value(s) 7, 9, but dataset.json has 0, 1, 2" in text


def test_fractional_label_values_are_refused(folders, dataset_json, write_labels, blocks):
    write_labels(folders[1] / "a.nii.gz", blocks().astype(np.float32) * 0.5)
    assert "label value(s) 0.5" in refusal(folders, dataset_json)
    write_labels(folders[1] / "a.nii.gz", blocks() * np.nextafter(np.float32(1), 2))
    assert "label value(s) 1.00000012, 2.00000024, but" in refusal(folders, dataset_json)


@pytest.mark.parametrize("keep", [0.1, 0.8])  # a broken header, a broken body
def test_truncated_files_are_named(folders, dataset_json, write_labels, keep):
    file = folders[1] / "b.nii.gz"
    write_labels(file, np.random.default_rng(0).integers(0, 3, (6, 12, 14)).astype(np.uint8))
    content = file.read_bytes()
    file.write_bytes(content[: int(keep * len(content))])
    assert f"Case b: {file} cannot be read" in refusal(folders, dataset_json)


def test_files_shorter_than_their_headers_say_are_named(folders, dataset_json, write_labels, blocks):
    dataset_json["file_ending"] = ".nii"
    for folder in folders:
        write_labels(folder / "b.nii", blocks())
    file = folders[1] / "b.nii"
    file.write_bytes(file.read_bytes()[:-300])  # ITK would fill up with zeros
    assert f"Case b: {file} cannot be read (" in refusal(folders, dataset_json)


def test_folders_without_label_maps_are_refused(folders, dataset_json, tmp_path):
    (tmp_path / "empty").mkdir()
    assert "has no label map ending in .nii.gz" in refusal((tmp_path / "empty", folders[1]), dataset_json)
    assert f"There is no folder {tmp_path / 'none'}" in refusal((folders[0], tmp_path / "none"), dataset_json)


def test_label_maps_beyond_the_memory(folders, dataset_json, monkeypatch):
    def out_of_memory(*_):
        raise MemoryError

    monkeypatch.setattr("nnunet_cmc.evaluation.folder_evaluation.np.unique", out_of_memory)
    said = refusal(folders, dataset_json)
    assert f"Case a: {folders[0] / 'a.nii.gz'} cannot be read (out of memory: it has " in said
    assert said.endswith(" voxels): use fewer processes, -np.")
