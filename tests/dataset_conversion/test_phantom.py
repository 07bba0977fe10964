"""Phantoms: anatomy and contrast that hold for every subject, and the folders made of them."""

import json

import numpy as np
import pytest
import SimpleITK as sitk
from scipy.ndimage import binary_dilation
from scipy.ndimage import label as components

from nnunet_cmc.dataset_conversion.folders import convert_folders
from nnunet_cmc.dataset_conversion.phantom import CLASSES, generate, phantom

LITRE = 1e6 / 2.5**3  # in voxels of the default grid


@pytest.fixture(scope="module")
def subjects():
    return [phantom(np.random.default_rng([9, i])) for i in range(6)]


def test_types_and_ranges(subjects):
    for labels, images in subjects:
        assert labels.shape == images["CT"].shape == images["MR"].shape == (56, 56, 72)
        assert labels.dtype == np.uint8
        assert images["CT"].dtype == images["MR"].dtype == np.int16
        assert images["CT"].min() >= -1024
        assert images["MR"].min() >= 1
        corner = (slice(None), slice(0, 4), slice(0, 4))
        assert abs(images["CT"][corner].mean() + 1000) < 15
        assert 1 < images["MR"][corner].mean() < 0.15 * images["MR"].max()


def test_every_organ_is_there_whole_and_of_its_size(subjects):
    litres = {"liver": (0.1, 0.3), "spleen": (0.025, 0.08), "kidneys": (0.04, 0.13), "stomach": (0.02, 0.1)}
    for labels, _ in subjects:
        assert set(np.unique(labels)) == {0, *CLASSES.values()}
        for organ, value in CLASSES.items():
            low, high = litres[organ]
            pieces, _ = components(labels == value)
            sizes = np.sort(np.bincount(pieces.ravel())[1:])
            assert low * LITRE < sizes.sum() < high * LITRE, organ
            expected = 2 if organ == "kidneys" else 1
            assert sizes[-expected:].sum() > 0.97 * sizes.sum(), organ
            assert sizes[-expected] > 0.25 * sizes.sum(), organ


def test_organs_lie_where_they_belong(subjects):
    for labels, _ in subjects:
        centre = {organ: np.mean(np.nonzero(labels == value), axis=1) for organ, value in CLASSES.items()}
        middle = labels.shape[2] / 2
        assert centre["liver"][2] < middle < centre["spleen"][2]  # x runs to the left
        assert abs(centre["kidneys"][2] - middle) < 6
        assert centre["kidneys"][0] < centre["liver"][0]  # z runs upwards
        assert centre["kidneys"][1] > centre["liver"][1]  # y runs backwards
        assert centre["stomach"][1] < centre["spleen"][1]


def test_subjects_differ(subjects):
    volumes = np.array([[np.sum(labels == value) for value in CLASSES.values()] for labels, _ in subjects])
    assert (volumes.std(axis=0) / volumes.mean(axis=0) > 0.03).all()
    overlap = [np.mean(subjects[0][0][labels > 0] == labels[labels > 0]) for labels, _ in subjects[1:]]
    assert max(overlap) < 0.95


def separation(image, inside, outside):
    """Distance of the medians of two regions in standard deviations of the first."""
    return abs(np.median(image[inside]) - np.median(image[outside])) / image[inside].astype(float).std()


def test_each_modality_finds_another_organ_hard(subjects):
    against_liver = {"CT": [], "MR": []}
    around_liver = {"CT": [], "MR": []}
    for labels, images in subjects:
        organ = {name: labels == value for name, value in CLASSES.items()}
        around = {name: binary_dilation(inside, iterations=2) & ~inside for name, inside in organ.items()}
        for modality, image in images.items():
            for name in ("spleen", "kidneys"):
                assert separation(image, organ[name], around[name]) > 1.5, (modality, name)
            against_liver[modality].append(separation(image, organ["spleen"], organ["liver"]))
            around_liver[modality].append(separation(image, organ["liver"], around["liver"]))
    assert np.mean(against_liver["CT"]) < 2.5 < 4 < np.mean(against_liver["MR"])
    assert np.mean(around_liver["MR"]) < 1.5 < 3 < np.mean(around_liver["CT"])


def test_same_seed_same_subject():
    first, second = (phantom(np.random.default_rng(5), (24, 24, 30), (6, 6, 6)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1]["MR"], second[1]["MR"])


def test_registered_folders_become_a_sound_dataset(tmp_path, nnunet_folders, require_integrity):
    sources = generate(tmp_path / "data", labeled=2, unlabeled=1, test=1, seed=1)
    assert sources["classes"] == CLASSES
    folder = convert_folders(5, "Phantom", **sources)
    assert sorted(f.name for f in (folder / "imagesTr").iterdir()) == [
        f"subject_00{i}_000{channel}.nii.gz" for i in (1, 2) for channel in (0, 1)
    ]
    assert sorted(f.name for f in (folder / "imagesUn").iterdir()) == [f"subject_003_000{c}.nii.gz" for c in (0, 1)]
    assert sorted(f.name for f in (folder / "imagesTs").iterdir()) == [f"subject_004_000{c}.nii.gz" for c in (0, 1)]
    assert [f.name for f in (folder / "labelsTs").iterdir()] == ["subject_004.nii.gz"]
    require_integrity(folder)


def test_unpaired_folders_have_one_scan_a_subject_and_left_is_left(tmp_path, nnunet_folders):
    folder = convert_folders(5, "Phantom", **generate(tmp_path, labeled=2, unlabeled=2, test=2, layout="unpaired"))
    assert sorted(f.name for f in (folder / "labelsTr").iterdir()) == ["subject_001_CT.nii.gz", "subject_002_MR.nii.gz"]
    assert sorted(f.name for f in (folder / "imagesUn").iterdir()) == [
        "subject_003_CT_0000.nii.gz",
        "subject_004_MR_0001.nii.gz",
    ]
    assert sorted(f.name for f in (folder / "imagesTs").iterdir()) == [
        "subject_005_CT_0000.nii.gz",
        "subject_006_MR_0001.nii.gz",
    ]
    ct, mr = (sitk.ReadImage(str(folder / "labelsTr" / f"subject_00{i}.nii.gz")) for i in ("1_CT", "2_MR"))
    assert ct.GetSpacing() != mr.GetSpacing()
    assert ct.GetDirection() != mr.GetDirection()
    for image in (ct, mr):  # in the world, x runs to the left in both
        shape = sitk.LabelShapeStatisticsImageFilter()
        shape.Execute(image)
        assert shape.GetCentroid(CLASSES["liver"])[0] < shape.GetCentroid(CLASSES["spleen"])[0] - 50


def test_misaligned_scans_of_a_subject_have_grids_and_labels_of_their_own(tmp_path, nnunet_folders):
    sources = generate(tmp_path, labeled=1, unlabeled=1, layout="misaligned", spacing=(14.0, 5.0, 5.0))
    folder = convert_folders(5, "Phantom", **sources)
    ct, mr = (sitk.ReadImage(str(folder / "labelsTr" / f"subject_001_{m}.nii.gz")) for m in ("CT", "MR"))
    assert ct.GetSize() == (36, 28, 10)
    assert mr.GetSize() == (36, 28, 9)
    assert ct.GetSpacing() == mr.GetSpacing() == (5.0, 5.0, 14.0)
    assert ct.GetOrigin() != mr.GetOrigin()
    turned = sitk.GetArrayFromImage(sitk.DICOMOrient(mr, "LPS"))
    np.testing.assert_array_equal(sitk.GetArrayFromImage(ct)[1:], turned, "of the same anatomy")
    assert {f.name for f in (folder / "imagesUn").iterdir()} == {
        "subject_002_CT_0000.nii.gz",
        "subject_002_MR_0001.nii.gz",
    }


def test_two_of_three_subjects_lack_a_modality(tmp_path, nnunet_folders):
    sources = generate(tmp_path, labeled=3, unlabeled=2, layout="missing", spacing=(9.0, 9.0, 9.0))
    folder = convert_folders(5, "Phantom", **sources)
    shown = json.loads((folder / "dataset.json").read_text())["cmc"]["present_channels"]
    kinds = ([0, 1], [0], [1], [0, 1], [0])
    assert shown == {f"subject_00{number}": channels for number, channels in enumerate(kinds, 1)}


def test_a_subject_does_not_depend_on_the_others(tmp_path):
    generate(tmp_path / "few", labeled=1, seed=3)
    generate(tmp_path / "more", labeled=2, seed=3)
    first, second = (tmp_path / name / "train" / "MR" / "subject_001.nii.gz" for name in ("few", "more"))
    assert first.read_bytes() == second.read_bytes()
    other = tmp_path / "more" / "train" / "MR" / "subject_002.nii.gz"
    assert first.read_bytes() != other.read_bytes()
    with pytest.raises(ValueError, match=r"more holds phantoms already"):
        generate(tmp_path / "more", labeled=1)


def test_impossible_requests(tmp_path):
    with pytest.raises(ValueError, match=r"one of registered, misaligned, unpaired, missing, but is 'paired'"):
        generate(tmp_path, labeled=2, layout="paired")
    with pytest.raises(ValueError, match=r"unpaired need 2 labelled subject\(s\), not 1"):
        generate(tmp_path, labeled=1, layout="unpaired")
    assert not list(tmp_path.iterdir())
