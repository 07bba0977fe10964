"""Raw datasets of a few cases, and the voxels of their files."""

import SimpleITK as sitk

from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset

SHAPE = (5, 6, 7)  # z, y, x
LABELS = {"liver": 1, "spleen": 2}


def write(cases, channels=("CT", "MR"), labels=LABELS, **options):
    return write_raw_dataset(**{"dataset_id": 7, "name": "X"} | options, channels=channels, labels=labels, cases=cases)


def read(file):
    return sitk.GetArrayFromImage(sitk.ReadImage(str(file)))
