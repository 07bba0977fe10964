"""AMOS 2022: abdominal CT and MRI, of different patients, with 15 organs.

The archive has ``dataset.json``, ``imagesTr``, ``labelsTr``, ``imagesVa``, ``labelsVa`` and ``imagesTs`` with files
``amos_0001.nii.gz``; scans numbered up to 500 are CT, from 507 on MRI. No label of ``imagesTs`` is public, so the
validation set is the test part here.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.dataset_writer import write_raw_dataset
from nnunet_cmc.dataset_conversion.draw import draw_names
from nnunet_cmc.dataset_conversion.label_names import read_classes
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles
from nnunet_cmc.dataset_conversion.volume import volume_name
from nnunet_cmc.utils.files import read_json, visible

DATASET_ID, NAME = 502, "AMOS"
CHANNELS = ("CT", "MRI")
LAST_CT, FIRST_MRI = 500, 507
PAPER_SCANS = {"Tr": 40, "Va": 20}  # of each modality (Zhou et al., MICCAI 2024, Sec. 3)
LICENCE = "CC BY 4.0"
REFERENCE = (
    "Ji et al., AMOS: A Large-Scale Abdominal Multi-Organ Benchmark for Versatile Medical Image Segmentation, "
    "NeurIPS 2022, https://doi.org/10.5281/zenodo.7262581"
)


def convert_amos(
    folder: str | Path,
    dataset_id: int = DATASET_ID,
    *,
    paper: bool = False,
    organs: Sequence[str] | None = None,
    unlabeled: bool = False,
    seed: int = 0,
    **options: Any,
) -> Path:
    """Write the raw dataset ``Dataset502_AMOS`` from the unpacked archive, and return its folder.

    Args:
        paper: draw, with ``seed``, the paper's 40 CT and 40 MRI scans for training and 20 and 20 for testing.
        organs: the classes; voxels of other organs become background. All 15, if None.
        unlabeled: whether the scans of ``imagesTs`` become unlabelled cases.
        options: of :func:`write_raw_dataset`.

    Raises:
        ValueError: the archive is not complete, has too few scans or not the organs asked for, or files are bad.
    """
    root = _archive_root(Path(folder))
    if not (root / "dataset.json").is_file():
        raise ValueError(f"There is no {root / 'dataset.json'}, which names the organs: unpack the archive again.")
    classes, values = _classes(root / "dataset.json", organs)
    _note_missing(root)
    unused = UnusedFiles()
    is_scan, why_not = re.compile(r"amos_\d+").fullmatch, "not named as a scan of AMOS"
    scans = {part: _volumes(root / f"images{part}", is_scan, why_not, unused) for part in ("Tr", "Va", "Ts")}
    channels = {name: _channel(name) for names in scans.values() for name in names}
    labels = {part: _labels(root / f"labels{part}", scans[part], unused) for part in ("Tr", "Va")}
    if paper:
        rng = np.random.default_rng(seed)
        for part, count in PAPER_SCANS.items():
            chosen = []
            for channel, modality in enumerate(CHANNELS):
                candidates = [name for name in scans[part] if channels[name] == channel]
                chosen += draw_names(candidates, count, rng, f"{modality} scans of images{part}")
            unused.left_out |= {file: "not drawn" for name, file in scans[part].items() if name not in chosen}
            scans[part] = {name: scans[part][name] for name in chosen}
        print(f"Drawn with seed {seed}: {len(scans['Tr'])} scans for training, {len(scans['Va'])} for testing.")
    if not unlabeled:
        unused.left_out |= dict.fromkeys(scans.pop("Ts").values(), "having no public label (--unlabeled uses them)")
    cases = [
        Case(name, name, {channels[name]: image}, labels.get(part, {}).get(name), part == "Va", values)
        for part in scans
        for name, image in scans[part].items()
    ]
    options |= {"licence": LICENCE, "reference": REFERENCE, "unused": unused, "seed": seed}
    return write_raw_dataset(dataset_id, NAME, CHANNELS, classes, cases, **options)


def _archive_root(folder: Path) -> Path:
    """Find the folder that holds ``imagesTr``: ``folder``, or the one folder in it that does."""
    if not folder.is_dir():
        raise ValueError(f"There is no folder {folder}: unpack the archive, and give its folder.")
    found = [inside for inside in (folder, *visible(folder)) if (inside / "imagesTr").exists()]
    if not found or (len(found) > 1 and found[0] != folder):
        where = f"{len(found)} folders with imagesTr in them" if found else "no imagesTr"
        raise ValueError(f"{folder} has {where}: give the folder of the unpacked archive.")
    return found[0]


def _classes(dataset_json: Path, organs: Sequence[str] | None) -> tuple[dict[str, int], dict[int, int] | None]:
    """Return the number of each class in the dataset, and number by value in the label files where these differ."""
    every = {name: value for name, value in read_classes(dataset_json).items() if value}
    if organs is None:
        return every, None
    plain = {name: name.lower().replace("_", " ") for name in (*every, *organs)}
    if unknown := [organ for organ in organs if plain[organ] not in map(plain.get, every)]:
        raise ValueError(f"AMOS has no organ {unknown[0]!r}: its organs are {', '.join(every)}.")
    chosen = {plain[organ] for organ in organs}
    numbers = {name: number for number, name in enumerate((name for name in every if plain[name] in chosen), 1)}
    return numbers, {value: numbers.get(name, 0) for name, value in every.items()}


def _note_missing(root: Path) -> None:
    """Print which scans the archive's own list has and the archive lacks; of paths in it, only the names count."""
    content = read_json(root / "dataset.json", "unpack the archive again")
    listed = []
    for key, part in {"training": "Tr", "validation": "Va"}.items():
        entries = content.get(key) if isinstance(content.get(key), list) else []
        images = [entry.get("image") if isinstance(entry, dict) else entry for entry in entries]
        listed += [root / f"images{part}" / Path(image).name for image in images if isinstance(image, str)]
    if missing := [file for file in listed if not file.is_file()]:
        print(f"{root / 'dataset.json'} lists {len(missing)} scan(s) that are not there, such as {missing[0]}.")


def _labels(folder: Path, scans: Mapping[str, Path], unused: UnusedFiles) -> dict[str, Path]:
    """Find the label file of each of the ``scans``. ValueError if one has none."""
    labels = _volumes(folder, scans.get, "a label without a scan", unused)
    if without := [str(scans[name]) for name in scans if name not in labels]:
        raise ValueError(
            f"{len(without)} scan(s) have no label in {folder}, such as {without[0]}: unpack the archive again."
        )
    return labels


def _volumes(folder: Path, accepts: Callable[[str], Any], why_not: str, unused: UnusedFiles) -> dict[str, Path]:
    """Find the volumes of a folder whose names are accepted, by name."""
    volumes: dict[str, Path] = {}
    for file in visible(folder):
        name = volume_name(file)
        if name and accepts(name):
            unused.enter(volumes, name, file, name)
        else:
            unused.left_out[file] = why_not
    return volumes


def _channel(name: str) -> int:
    number = int(name.removeprefix("amos_"))
    if LAST_CT < number < FIRST_MRI:
        raise ValueError(
            f"{name} is neither CT (up to {LAST_CT}) nor MRI (from {FIRST_MRI}): AMOS 2022 has no such scan; remove it."
        )
    return int(number >= FIRST_MRI)
