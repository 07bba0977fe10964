"""Synthetic CT and MR over the anatomy of AMOS label maps, as a source of evidence with several classes.

    python benchmarks/evidence/amos.py --data FOLDER --output FOLDER

FOLDER of the data holds label maps ``*_gt.nii.gz`` in AMOS numbering, one a patient. Of each patient three subjects
are made, turned and stretched at random; 4 patients test, the others train. What CT and MR show of them is generated.
"""

import argparse
from pathlib import Path

import numpy as np
import SimpleITK as sitk
from scipy.ndimage import binary_fill_holes, distance_transform_edt
from sources import AMOS

from nnunet_cmc.dataset_conversion.phantom import INDEX, ct, mr
from nnunet_cmc.utils.files import write_json

COPIES, TESTED = 3, 4
SPACING = 4.0  # mm
TISSUE = {"spleen": "spleen", "right_kidney": "kidneys", "left_kidney": "kidneys", "liver": "liver",
          "stomach": "stomach", "aorta": "vessel"}  # fmt: skip
NUMBER = {"spleen": 1, "right_kidney": 2, "left_kidney": 3, "liver": 6, "stomach": 7, "aorta": 8}  # in AMOS
OTHER_ORGANS = "bowel"  # classes of AMOS that are not asked for are there to be confused with
FAT, SKIN = 25.0, 30.0  # mm from the nearest organ: to the end of what is inside, and to the end of the body


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        make_subjects(args.data, args.output, args.seed)
    except ValueError as error:
        parser.error(str(error))
    print(f"Written: {args.output}")


def make_subjects(data: Path, output: Path, seed: int = 0) -> None:
    """Write all subjects of the label maps, then their ``split.json``; ValueError if there are too few maps."""
    files = sorted(data.glob("*_gt.nii.gz"))
    if len(files) < 2 * TESTED:
        raise ValueError(f"{data} has {len(files)} label maps *_gt.nii.gz, but {2 * TESTED} or more are needed.")
    order = np.random.default_rng(seed).permutation(len(files)).tolist()
    train, test = order[:-TESTED], order[-TESTED:]
    for part in (*(f"images_{modality}" for modality in AMOS.modalities), "labels"):
        (output / part).mkdir(parents=True, exist_ok=True)
    for patient in order:
        for copy in range(COPIES):
            make_subject(files[patient], output, _name(patient, copy), np.random.default_rng((seed, patient, copy)))
    split = {
        "train_order": [_name(patient, copy) for copy in range(COPIES) for patient in train],
        "test": [_name(patient, copy) for patient in test for copy in range(COPIES)],
    }
    write_json(output / "split.json", split)


def _name(patient: int, copy: int) -> str:
    return f"patient{patient:02d}_{copy}"


def make_subject(file: Path, output: Path, name: str, rng: np.random.Generator) -> None:
    """Write one subject: the patient's organs, turned by up to 8 degrees and scaled by up to 10 % along each axis."""
    organs = deformed(sitk.DICOMOrient(sitk.ReadImage(str(file), sitk.sitkUInt8), "LPS"), rng)
    labels = sitk.GetArrayFromImage(organs)
    tissues = tissues_of(labels)
    ours = np.zeros(256, np.uint8)
    for organ, value in AMOS.classes.items():
        ours[NUMBER[organ]] = value
    arrays = {"labels": ours[labels]}
    arrays |= {
        f"images_{m}": make(rng, tissues, [SPACING] * 3) for m, make in zip(AMOS.modalities, (ct, mr), strict=True)
    }
    for part, array in arrays.items():
        image = sitk.GetImageFromArray(array)
        image.CopyInformation(organs)
        sitk.WriteImage(image, str(output / part / f"{name}.nii.gz"))


def deformed(organs: sitk.Image, rng: np.random.Generator) -> sitk.Image:
    """Return the label map on an isotropic grid with a margin for the body around the organs."""
    array = sitk.GetArrayViewFromImage(organs)
    inside = np.argwhere(array)[:, ::-1]
    low, high = inside.min(0), inside.max(0)
    centre = organs.TransformContinuousIndexToPhysicalPoint(((low + high) / 2).tolist())
    extent = (high - low) * organs.GetSpacing() * 1.15 + 2 * (SKIN + SPACING)
    size = np.ceil(extent / SPACING).astype(int)
    transform = sitk.AffineTransform(3)
    transform.SetCenter(centre)
    angles = np.deg2rad(rng.uniform(-8, 8, 3))
    rotation = sitk.Euler3DTransform((0.0, 0.0, 0.0), *angles.tolist()).GetMatrix()
    transform.SetMatrix((np.reshape(rotation, (3, 3)) @ np.diag(rng.uniform(0.9, 1.1, 3))).ravel().tolist())
    origin = np.subtract(centre, (size - 1) / 2 * SPACING)
    return sitk.Resample(
        organs, size.tolist(), transform, sitk.sitkNearestNeighbor, origin.tolist(), [SPACING] * 3,
        organs.GetDirection(), 0, sitk.sitkUInt8,
    )  # fmt: skip


def tissues_of(labels: np.ndarray) -> np.ndarray:
    """Return indices of the phantom's tissues: organs in muscle, fat around them, skin, and air outside."""
    distance = distance_transform_edt(labels == 0, sampling=SPACING)
    tissues = np.full(labels.shape, INDEX["air"])
    tissues[distance < SKIN] = INDEX["skin"]
    tissues[distance < FAT] = INDEX["fat"]
    tissues[binary_fill_holes(distance < FAT / 3)] = INDEX["muscle"]
    tissues[labels > 0] = INDEX[OTHER_ORGANS]
    for name, value in NUMBER.items():
        tissues[labels == value] = INDEX[TISSUE[name]]
    return tissues


if __name__ == "__main__":
    main()
