"""Folders of tiny volumes, and what a conversion makes of them."""

import json

import numpy as np
import SimpleITK as sitk

CLASSES = {"liver": 1}


def scans(folder, *names, ending=".nii.gz", size=4, label=False):
    """Files of tiny volumes, all of one size on one grid."""
    folder.mkdir(parents=True, exist_ok=True)
    array = np.arange(1, size**3 + 1).reshape(size, size, size)
    for name in names:
        image = sitk.GetImageFromArray((array % 2).astype(np.uint8) if label else array.astype(np.int16))
        sitk.WriteImage(image, str(folder / f"{name}{ending}"))
    return folder


def labels(folder, *names, **options):
    return scans(folder, *names, label=True, **options)


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.glob("*/*"))


def cmc(folder):
    return json.loads((folder / "dataset.json").read_text())["cmc"]
