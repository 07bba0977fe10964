"""Thyroid-associated orbitopathy (TAO): T1 and contrast-enhanced T1 (T1c) of the orbits, 8 structures.

The data are private. A folder for each patient is expected, all of them in one folder::

    patient_01/T1.nii.gz  or  patient_01/T1/   (a DICOM series)
    patient_01/T1_label.nii.gz
    patient_01/T1c.nii.gz  or  patient_01/T1c/
    patient_01/T1c_label.nii.gz

T1 and T1c may lie on different grids, each with the label drawn on it. A scan without a label is an unlabelled one.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.dataset_conversion.draw import draw_names
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles
from nnunet_cmc.dataset_conversion.volume import describe_unread_scan, volume_name
from nnunet_cmc.utils.files import visible

DATASET_ID, NAME = 503, "TAO"
CHANNELS = ("T1", "T1c")
# lacrimal gland, optic nerve, inferior and superior oblique, superior, lateral, medial and inferior rectus muscle
CLASSES = {name: value for value, name in enumerate(("LG", "ON", "IOM", "SOM", "SR", "LR", "MR", "IR"), 1)}
TEST_FRACTION = 0.2  # Zhou et al., MICCAI 2024, Sec. 3
LICENCE = "private"
REFERENCE = (
    "Zhou et al., Robust Semi-supervised Multimodal Medical Image Segmentation via Cross Modality Collaboration, "
    "MICCAI 2024"
)


def convert_tao(folder: str | Path, dataset_id: int = DATASET_ID, *, seed: int = 0, **options: Any) -> Path:
    """Write the raw dataset ``Dataset503_TAO`` from a folder of patients, and return its folder.

    Each scan is a case ``PATIENT_T1`` or ``PATIENT_T1c`` on its own grid. A fifth of the patients, drawn with ``seed``
    from those with a label for every scan, are the test part. ``options`` are those of :func:`write_raw_dataset`.

    Raises:
        ValueError: there is no patient, a label lacks its scan, or files are bad (all of them are listed).
    """
    root = Path(folder)
    if not root.is_dir():
        raise ValueError(f"There is no folder {root}: give the one that holds the folders of the patients.")
    unused = UnusedFiles()
    patients: dict[str, list[Case]] = {}
    for path in visible(root):
        if path.is_dir() and (cases := _cases(path, unused)):
            patients[path.name] = cases
        else:
            unused.left_out[path] = "not a patient's folder with T1 or T1c in it"
    if not patients:
        raise ValueError(f"{root} has no folder with T1 or T1c in it: give the one that holds the patients' folders.")
    complete = [patient for patient, cases in patients.items() if all(case.label for case in cases)]
    test = draw_names(complete, round(TEST_FRACTION * len(complete)), np.random.default_rng(seed), "patients")
    print(f"Drawn with seed {seed} for testing: {', '.join(test) or 'none (too few patients)'}.")
    cases = [replace(case, test=case.subject in test) for scans in patients.values() for case in scans]
    options |= {"licence": LICENCE, "reference": REFERENCE, "unused": unused, "seed": seed}
    return write_raw_dataset(dataset_id, NAME, CHANNELS, CLASSES, cases, **options)


def _cases(folder: Path, unused: UnusedFiles) -> list[Case]:
    """Make a case for each scan in the folder of a patient."""
    files: dict[str, Path] = {}
    names = [f"{modality}{kind}" for modality in CHANNELS for kind in ("", "_label")]
    for path in visible(folder):
        name = volume_name(path)
        if path.name.split(".")[0] in names and name is None and (error := describe_unread_scan(path)):
            unused.errors.append(error)
        elif name in names:
            unused.enter(files, name, path, f"{name} of {folder.name}")
        else:
            unused.left_out[path] = "neither T1 or T1c nor a label of them"
    orphans = [files[f"{m}_label"] for m in CHANNELS if f"{m}_label" in files and m not in files]
    unused.errors += [f"{file} is a label without a scan: add the scan, or remove the label." for file in orphans]
    return [
        Case(f"{folder.name}_{modality}", folder.name, {channel: files[modality]}, files.get(f"{modality}_label"))
        for channel, modality in enumerate(CHANNELS)
        if modality in files
    ]
