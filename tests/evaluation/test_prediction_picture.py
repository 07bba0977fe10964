"""The overview picture: what is shown, which way up, and in which proportions."""

import matplotlib.image
import numpy as np
import pytest
import SimpleITK as sitk

from nnunet_cmc.evaluation.prediction_picture import CaseFiles, save_overview

CLASSES = {"liver": 1, "spleen": 2}


@pytest.fixture
def case(tmp_path, write_labels, blocks):
    scan = 100 * blocks().astype(np.float32) + np.random.default_rng(0).random((6, 12, 14), np.float32)
    for name in ("ct", "mr"):
        write_labels(tmp_path / f"{name}.nii.gz", scan)
    write_labels(tmp_path / "reference.nii.gz", blocks())
    write_labels(tmp_path / "prediction.nii.gz", blocks(1, spleen=False))
    images = {"CT": tmp_path / "ct.nii.gz", "MR": tmp_path / "mr.nii.gz"}
    return CaseFiles("case_1", images, tmp_path / "reference.nii.gz", {"both": tmp_path / "prediction.nii.gz"})


def draw(tmp_path, *cases):
    file = tmp_path / "overview.png"
    save_overview(file, cases, CLASSES)
    return matplotlib.image.imread(file)[..., :3]


def orange(picture):
    """Number of pixels in which red exceeds blue: those of the spleen, second colour of the palette."""
    return int((picture[..., 0] > picture[..., 2] + 0.3).sum())


def test_a_row_per_case_and_a_column_per_scan_and_label_map(tmp_path, case):
    one, two = draw(tmp_path, case), draw(tmp_path, case, case)
    # 4 panels of 14 x 12 pixels of 1 x 1.5 mm, 360 dots wide each
    assert one.shape[1] == pytest.approx(4 * 360, rel=0.05)
    assert two.shape[0] - one.shape[0] == pytest.approx(360 * 12 * 1.5 / 14, abs=3)


def test_a_class_is_coloured_where_it_is_predicted(tmp_path, case):
    missed = orange(draw(tmp_path, case))
    found = CaseFiles(case.case, case.images, case.reference, {"both": case.reference})
    assert orange(draw(tmp_path, found)) > 1.5 * missed > 0


@pytest.mark.parametrize(
    ("spacing", "size", "left"),
    [
        ((1, 1, 3), (20, 30), False),  # axial: rows to the back, columns to the patient's left
        ((1, 1, 1), (20, 30), False),
        ((1, 3, 1), (10, 30), False),  # coronal: rows to the feet
        ((3, 1, 1), (10, 20), True),  # sagittal: columns to the back
    ],
)
def test_the_plane_of_acquisition_is_shown_upright(tmp_path, write_labels, spacing, size, left):
    labels = np.zeros((10, 20, 30), np.uint8)  # axes to the head, the back and the patient's left
    labels[7:9, 2:5, 24:28] = 2  # near the head, the front and the left
    write_labels(tmp_path / "labels.nii.gz", labels, spacing=spacing)
    write_labels(tmp_path / "scan.nii.gz", np.zeros(labels.shape, np.float32), spacing=spacing)
    picture = draw(tmp_path, CaseFiles("x", {"CT": tmp_path / "scan.nii.gz"}, tmp_path / "labels.nii.gz", {}))
    black = picture.max(axis=2) < 0.1
    rows, columns = (np.flatnonzero(black.mean(axis=axis) > 0.3) for axis in (1, 0))
    _, columns = np.split(columns, np.flatnonzero(np.diff(columns) > 1) + 1)  # of the scan, of the reference
    panel = picture[rows[0] : rows[-1], columns[0] : columns[-1]]
    assert panel.shape[0] / panel.shape[1] == pytest.approx(size[0] / size[1], rel=0.05)
    y, x = np.nonzero(panel[..., 0] > panel[..., 2] + 0.3)
    assert y.max() < panel.shape[0] / 2  # up
    assert x.max() < panel.shape[1] / 2 if left else x.min() > panel.shape[1] / 2


def test_the_orientation_of_the_file_does_not_matter(tmp_path, case):
    before = draw(tmp_path, case)
    for file in (*case.images.values(), case.reference, *case.predictions.values()):
        sitk.WriteImage(sitk.DICOMOrient(sitk.ReadImage(str(file)), "SAR"), str(file))
    np.testing.assert_array_equal(draw(tmp_path, case), before)


def test_a_scan_or_prediction_that_a_case_lacks_leaves_an_empty_panel(tmp_path, case):
    single = CaseFiles("case_2", {"MR": case.images["MR"]}, case.reference, {})
    picture = draw(tmp_path, case, single)
    assert picture.shape[1] == draw(tmp_path, case).shape[1]
    height = picture.shape[0]
    assert picture[height // 2 + 30 : -60, 60:300].mean() > 0.9  # CT of case_2
    assert picture[60 : height // 2 - 30, 60:300].mean() < 0.9  # CT of case_1


def test_an_empty_reference_is_drawn(tmp_path, case, write_labels, blocks):
    write_labels(case.reference, 0 * blocks())
    assert draw(tmp_path, case).std() > 0.1


def test_the_slice_of_an_empty_reference_shows_false_positives(tmp_path, case, write_labels):
    labels = np.zeros((6, 12, 14), np.uint8)
    write_labels(case.reference, labels)
    labels[5, 2:10, 2:10] = 2  # not the middle slice
    write_labels(case.predictions["both"], labels)
    empty = orange(draw(tmp_path, CaseFiles("x", case.images, case.reference, {"both": case.reference})))
    assert orange(draw(tmp_path, case)) > empty + 1000


def test_a_row_for_each_slice_that_the_classes_need(tmp_path, case, write_labels):
    one = draw(tmp_path, case)
    labels = np.zeros((6, 12, 14), np.uint8)
    labels[1, 2:8, 2:7] = 1
    labels[5, 4:9, 10:13] = 2
    write_labels(case.reference, labels)
    two = draw(tmp_path, case)
    assert two.shape[0] - one.shape[0] == pytest.approx(360 * 12 * 1.5 / 14, abs=3)
    upper, lower = (orange(half[:, two.shape[1] // 2 :]) for half in np.array_split(two[:-80], 2))
    assert lower > upper == 0
