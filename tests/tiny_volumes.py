"""Folders of tiny volumes, and what a conversion makes of them."""

import csv
import json
from pathlib import Path
from zlib import crc32

import numpy as np
import SimpleITK as sitk

CLASSES = {"liver": 1}


def scans(folder, *names, ending=".nii.gz", size=4, label=False):
    """Files of tiny volumes, all of one size on one grid, each with voxels of its own."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        file = folder / f"{name}{ending}"
        sitk.WriteImage(sitk.GetImageFromArray(voxels_of(file, size, label)), str(file))
    return folder


def voxels_of(file, size=4, label=False):
    """Random voxels ``(size, size, size)`` that the file's path decides."""
    rng = np.random.default_rng(crc32(str(file).encode()))
    return rng.integers(0, 2 if label else 1000, (size,) * 3).astype(np.uint8 if label else np.int16)


def labels(folder, *names, **options):
    return scans(folder, *names, label=True, **options)


def files(folder):
    return sorted(str(file.relative_to(folder)) for file in folder.glob("*/*"))


def sources(folder):
    """Source of each file that is not a volume of zeros, and its path in ``folder``, which shows the same voxels."""
    found = {}
    with open(folder / "manifest.csv", encoding="utf-8", newline="") as manifest:
        for row in csv.DictReader(manifest):
            if row["source"]:
                written, source = (
                    sitk.GetArrayFromImage(sitk.ReadImage(str(file))) for file in (folder / row["file"], row["source"])
                )
                np.testing.assert_array_equal(written, source)
                found[row["file"].removesuffix(".nii.gz")] = Path(row["source"])
    return found


def cmc(folder):
    return json.loads((folder / "dataset.json").read_text())["cmc"]
