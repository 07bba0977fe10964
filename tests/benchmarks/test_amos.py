"""Synthetic scans over label maps: patients stay apart, organs stay what they are."""

import json
import sys

import amos
import numpy as np
import SimpleITK as sitk


def test_subjects_of_label_maps(tmp_path, monkeypatch):
    for number in range(9):
        array = np.zeros((12, 14, 16), np.uint8)
        array[3:8, 3:8, 3:8], array[3:8, 9:12, 9:14], array[2:4, 3:6, 10:14] = 6, 1, 10
        image = sitk.GetImageFromArray(array)
        image.SetSpacing((8.0, 8.0, 8.0))
        sitk.WriteImage(image, str(tmp_path / f"p{number}_gt.nii.gz"))
    monkeypatch.setattr(sys, "argv", ["amos.py", "--data", str(tmp_path), "--output", str(tmp_path / "out")])
    amos.main()
    split = json.loads((tmp_path / "out" / "split.json").read_text())
    patients = [{subject.split("_")[0] for subject in split[part]} for part in ("train_order", "test")]
    assert not patients[0] & patients[1]
    assert [len(part) for part in patients] == [5, 4]
    seen = set()
    for subject in (*split["train_order"], *split["test"]):
        ct, mr, labels = (
            sitk.GetArrayFromImage(sitk.ReadImage(str(tmp_path / "out" / part / f"{subject}.nii.gz")))
            for part in ("images_CT", "images_MR", "labels")
        )
        assert ct.shape == mr.shape == labels.shape
        assert set(np.unique(labels)) == {0, 1, 4}, (
            "numbered without gaps, as the converter does, or predictions are evaluated wrongly"
        )
        assert 0.6 < (labels == 4).sum() * amos.SPACING**3 / (125 * 8**3) < 1.5  # mm3, stretched by up to 10 % an axis
        assert ct[labels == 1].mean() - ct[labels == 4].mean() > 10
        assert mr[labels == 1].mean() > 1.4 * mr[labels == 4].mean()
        assert ct[0, 0, 0] < -900
        seen.add(labels.tobytes())
    assert len(seen) == 27
    assert sorted(amos.AMOS.classes.values()) == [1, 2, 3, 4, 5, 6]
