"""MS-CMRSeg 2019: cardiac MRI of 45 patients, each with LGE, bSSFP and T2, on grids that differ.

Files are found by their names, wherever in the archive they lie:

* ``patient1_LGE.nii.gz``, ``_C0`` (bSSFP), ``_T2``, and ``patient1_LGE_manual.nii.gz`` and so on, the labels;
* ``subject1_DE.nii.gz`` (LGE) and so on, as later releases name them;
* ``myops_training_101_DE.nii.gz`` and so on, on one grid, and ``myops_training_101_gd.nii.gz``, the label of them all.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.dataset_conversion.draw import draw_names
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles
from nnunet_cmc.dataset_conversion.volume import volume_name
from nnunet_cmc.utils.files import visible_below

DATASET_ID, NAME = 501, "MSCMRSeg"
SEQUENCES = {"LGE": "LGE", "DE": "LGE", "C0": "bSSFP", "T2": "T2"}  # by the name that files give them
CLASSES = {"myocardium": 1, "left ventricle": 2, "right ventricle": 3}
LABEL_VALUES = {
    **{200: 1, 500: 2, 600: 3},
    **{1220: 1, 2221: 1},  # oedema and scar, in the files of MyoPS: both of the myocardium
    **{1: 3, 2: 1, 3: 2},  # later releases
}
PAPER_PATIENTS = {"training": 40, "testing": 5}  # Zhou et al., MICCAI 2024, Sec. 3
LICENCE = "by agreement with the organisers of MS-CMRSeg 2019"
REFERENCE = (
    "Zhuang, Multivariate Mixture Model for Myocardial Segmentation Combining Multi-Source Images, IEEE TPAMI 2019; "
    "Zhuang et al., Cardiac segmentation on late gadolinium enhancement MRI, Medical Image Analysis 2022"
)

_NAME = re.compile(
    r"(?P<patient>(?:patient|subject|myops_[a-z]+_)\d+)_(?:(?P<sequence>LGE|DE|C0|T2)(?P<manual>_manual)?|gd)"
)
Scans = dict[str, tuple[Path, Path | None]]  # scan and label of each sequence of a patient


def convert_mscmrseg(
    folder: str | Path,
    dataset_id: int = DATASET_ID,
    *,
    layout: str = "separate",
    sequences: Sequence[str] = ("LGE", "bSSFP"),
    paper: bool = False,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write the raw dataset ``Dataset501_MSCMRSeg`` from the unpacked archive, and return its folder.

    Args:
        layout: ``separate``: a case ``patient1_LGE`` for each scan, on its own grid. ``registered``: a case of all
            sequences for each label, named in the same way, with the other sequences resampled onto the grid of the
            labelled one by their world coordinates; a patient without a label is one unlabelled case.
        sequences: those that become channels, in this order.
        paper: draw, with ``seed``, the paper's 40 patients for training and 5 for testing; else all are for training.
        options: of :func:`write_raw_dataset`.

    Raises:
        ValueError: the archive lacks files, labels or patients that are needed, or files are bad.
    """
    if layout not in ("separate", "registered"):
        raise ValueError(f"The layout must be separate or registered, but is {layout!r}.")
    unused = UnusedFiles()
    patients = _patients(Path(folder), sequences, unused)
    test: list[str] = []
    if paper:
        training, test = _paper_split(patients, sequences, seed)
        for patient in sorted(patients.keys() - {*training, *test}):
            unused.left_out |= {image: "not drawn" for image, _ in patients.pop(patient).values()}
    cases = []
    for patient, scans in patients.items():
        every = {sequences.index(s): image for s, (image, _) in scans.items()}
        for s in scans if layout == "separate" else _one_for_each_label(scans):
            image, label = scans[s]
            images = {sequences.index(s): image} if layout == "separate" else every
            cases.append(Case(f"{patient}_{s}", patient, images, label, patient in test, LABEL_VALUES, grid=image))
    options |= {"licence": LICENCE, "reference": REFERENCE, "unused": unused, "seed": seed}
    return write_raw_dataset(dataset_id, NAME, sequences, CLASSES, cases, **options)


def _one_for_each_label(scans: Scans) -> list[str]:
    """Choose the first sequence of those that share a label, and one without a label only where none has one."""
    first_with = {label: s for s, (_, label) in reversed(scans.items())}
    if len(first_with) > 1:
        first_with.pop(None, None)
    return list(first_with.values())


def _patients(folder: Path, sequences: Sequence[str], unused: UnusedFiles) -> dict[str, Scans]:
    """Find scans and labels of each patient, sequences in the order of ``sequences``."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: unpack the archive, and give its folder.")
    scans: dict[tuple[str, str], Path] = {}
    labels: dict[tuple[str, str], Path] = {}
    for file in visible_below(folder):
        match = _NAME.fullmatch(volume_name(file) or "")
        if match is None:
            unused.left_out[file] = "not named as a scan or label of MS-CMRSeg"
            continue
        sequence = SEQUENCES.get(match["sequence"], "")  # "": a label of all
        if sequence and sequence not in sequences:
            unused.left_out[file] = f"not {' or '.join(sequences)}"
            continue
        key = (match["patient"], sequence)
        unused.enter(labels if match["manual"] or not sequence else scans, key, file, f"of {' '.join(key).strip()}")
    if not scans:
        raise ValueError(
            f"There is no scan of {' or '.join(sequences)} in {folder}, such as patient1_LGE.nii.gz or "
            "subject1_DE.nii.gz: give the folder of the unpacked archive."
        )
    names = sorted({patient for patient, _ in scans})
    orphans = [file for key, file in labels.items() if key not in scans and (key[1] or key[0] not in names)]
    unused.errors += [f"{file} is a label without a scan: unpack the archive again." for file in orphans]
    return {
        name: {
            s: (scans[name, s], labels.get((name, s)) or labels.get((name, "")))
            for s in sequences
            if (name, s) in scans
        }
        for name in names
    }


def _paper_split(patients: dict[str, Scans], sequences: Sequence[str], seed: int) -> tuple[list[str], list[str]]:
    """Return the patients for training and for testing.

    Those with most labels are tested, but with half of the labels of a sequence at most: training needs some, too.
    """
    rng = np.random.default_rng(seed)
    chosen = draw_names(patients, sum(PAPER_PATIENTS.values()), rng, "patients")
    labelled = {p: [s for s, (_, label) in patients[p].items() if label] for p in chosen}
    spare = {s: sum(s in labelled[p] for p in chosen) // 2 for s in sequences}
    test: list[str] = []
    shuffled = [chosen[i] for i in rng.permutation(len(chosen))]
    for patient in sorted(shuffled, key=lambda patient: -len(labelled[patient])):
        if len(test) < PAPER_PATIENTS["testing"] and labelled[patient] and all(spare[s] for s in labelled[patient]):
            test.append(patient)
            spare |= {s: spare[s] - 1 for s in labelled[patient]}
    if len(test) < PAPER_PATIENTS["testing"]:
        raise ValueError("Too few patients have a label for a test part: add the archive of the test labels.")
    counts = ", ".join(f"{s} of {sum(s in labelled[p] for p in test)}" for s in sequences)
    print(f"Drawn with seed {seed} for testing: {', '.join(sorted(test))}. Labelled among them: {counts}.")
    return [patient for patient in chosen if patient not in test], test
