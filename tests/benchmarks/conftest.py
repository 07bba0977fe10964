"""The glioma benchmark's data, of generated scans."""

import json

import numpy as np
import pytest
import SimpleITK as sitk


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """As the real data's folder, with small scans of every subject."""
    folder = tmp_path_factory.mktemp("data")
    train, test = [f"train{number:02d}" for number in range(80)], [f"test{number:02d}" for number in range(20)]
    (folder / "split.json").write_text(json.dumps({"train_order": train, "test": test}))
    rng = np.random.default_rng(0)
    for part in ("images_FLAIR", "images_T1post", "labels"):
        (folder / part).mkdir()
        for subject in (*train, *test):
            array = np.zeros((10, 12, 14), np.uint8)
            array[3:7, 4:8, 5:9] = 1
            array = array if part == "labels" else array * 100 + rng.integers(1, 9, array.shape, dtype=np.uint8)
            image = sitk.GetImageFromArray(array)
            image.SetSpacing((2.0, 2.0, 2.0))
            sitk.WriteImage(image, str(folder / part / f"{subject}.nii.gz"))
    return folder
