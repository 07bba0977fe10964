"""The writer of nnU-Net raw datasets that all converters share: it checks every file, then writes the whole dataset."""

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pandas as pd
from nnunetv2.configuration import default_num_processes
from nnunetv2.paths import nnUNet_raw
from nnunetv2.utilities.dataset_name_id_conversion import find_candidate_datasets

from nnunet_cmc.data.format.dataset_json import VERSION, DatasetDescription, modality_names
from nnunet_cmc.data.format.scan_folder import name_problem
from nnunet_cmc.data.format.splits import SPLITS, make_splits, require_every_modality
from nnunet_cmc.data.preprocessing.normalization import describe_normalization
from nnunet_cmc.data.reading.grid import distance_of_transforms
from nnunet_cmc.dataset_conversion.case import Case
from nnunet_cmc.dataset_conversion.case_checks import find_problems
from nnunet_cmc.dataset_conversion.case_writer import FILE_ENDING, Step, plan_case, write_case
from nnunet_cmc.dataset_conversion.source_files import UnusedFiles, equal_files
from nnunet_cmc.utils.files import atomic_write, require_writable, write_json
from nnunet_cmc.utils.formatting import counted
from nnunet_cmc.utils.parallel import run_parallel
from nnunet_cmc.utils.variables import require_set


def write_raw_dataset(
    dataset_id: int,
    name: str,
    channels: Sequence[str],
    labels: dict[str, int],
    cases: Sequence[Case],
    *,
    ct: Sequence[str] = (),
    licence: str = "",
    reference: str = "",
    unused: UnusedFiles | None = None,
    validation: float = 0.2,
    seed: int = 0,
    allow_empty_labels: bool = False,
    link: bool = False,
    dry_run: bool = False,
    processes: int = default_num_processes,
) -> Path:
    """Write ``nnUNet_raw/Dataset{ID:03d}_{name}`` from ``cases``, and return this folder.

    Labelled cases go to ``imagesTr`` and ``labelsTr``, with zeros for absent channels; unlabelled ones to ``imagesUn``
    and test cases to ``imagesTs`` and ``labelsTs``, with the present channels alone. Images keep their data type and
    voxels, and are copied if they are compressed NIfTI on the case's grid; labels become uint8 or uint16.
    ``manifest.csv`` has the source of each file. What is interrupted leaves nothing behind.

    Args:
        channels: names of the modalities, in channel order.
        labels: value of each class in the dataset; the background is 0, and may be left out.
        ct: channels that are CT, in HU, whatever their names: nnU-Net normalises as CT what it finds called CT.
        licence, reference: of the data, for ``dataset.json``.
        unused: files of the source that no case uses.
        validation: fraction of the subjects that validate in the one fold of ``splits_final.json``, drawn with
            ``seed``; there is no such file where that leaves too few subjects.
        allow_empty_labels: whether a label may show no class at all.
        link: make hard links in place of copies of images, where the disk allows it.
        dry_run: check everything and print the planned files, but write nothing.

    Raises:
        ValueError: the dataset exists, the description is unsound, or files are bad; all bad files are listed.
    """
    folder = _new_dataset_folder(dataset_id, name)
    labels = _checked_labels(labels)
    if unknown := [channel for channel in ct if channel not in channels]:
        raise ValueError(f"--ct names {unknown[0]}, which is none of the modalities {', '.join(channels)}: correct it.")
    cases = sorted(cases, key=lambda case: case.name)
    about = {key: text for key, text in (("licence", licence), ("reference", reference)) if text}
    dataset_json = _dataset_json(folder.name, channels, ct, labels, cases, about)
    description = _description(dataset_json)
    unused = unused or UnusedFiles()
    _print_left_out(unused.left_out, every_one=dry_run)
    trained_and_tested = _copies(cases)
    _print_transforms(cases)
    print(describe_normalization(description))
    if not dry_run:
        require_writable(folder.parent)
    training = _training(cases)
    checks = [(case, tuple(labels.values()), allow_empty_labels) for case in cases]
    found = [*unused.errors, *_name_problems(cases), *_names_alike(cases), *_tested_subjects(cases)]
    found += trained_and_tested
    if not unused.errors:  # which may be why there is no label
        try:
            remedy = "give it --labels NAME=FOLDER of its own if the scans are unpaired, or leave the modality out"
            require_every_modality(description, training, "the training part", remedy)
        except ValueError as error:
            found.append(str(error))
    found += [problem for each in run_parallel(find_problems, checks, processes, "Checking") for problem in each]
    if found:
        raise ValueError("\n  ".join([f"Nothing was written, for {len(found)} problem(s) in the files:", *found]))
    plans = [plan_case(case, len(channels)) for case in cases]
    if dry_run:
        _print_plans(folder, plans)
        print(describe_pairing(description))
        return folder

    with atomic_write(folder) as unfinished:
        for part in {"imagesTr", "labelsTr", *(step.target.split("/")[0] for plan in plans for step in plan)}:
            (unfinished / part).mkdir(parents=True)
        jobs = [(unfinished, case, plan, link) for case, plan in zip(cases, plans, strict=True)]
        run_parallel(write_case, jobs, processes, "Writing")
        _write_manifest(unfinished / "manifest.csv", cases, plans)
        try:
            splits = make_splits(description, training, labeled=[1], val=validation, seed=seed)
            write_json(unfinished / SPLITS, splits)
        except ValueError as error:
            print(f"There is no {SPLITS}. {error}")
        write_json(unfinished / "dataset.json", dataset_json)
    return folder


def describe_pairing(description: DatasetDescription) -> str:
    """Return a sentence on whether the scans were understood as registered or as unpaired."""
    if len(description.modalities) < 2:
        return (
            "There is one modality: nnU-Net's own planners and trainers take it, those of nnunet_cmc need two or more."
        )
    if registered := sum(len(channels) > 1 for channels in description.present_channels.values()):
        return f"Cases with several modalities, which are registered and fused: {registered}."
    shown: dict[str, set[int]] = defaultdict(set)
    for case, channels in description.present_channels.items():
        shown[description.subject_of(case)].update(channels)
    unpaired = (
        f"No case has several modalities: the scans are unpaired, and never fused with each other in training. They "
        f"are of {counted(len(shown), 'subject')}."
    )
    if max(map(len, shown.values())) > 1:
        return unpaired
    *others, last = description.modalities
    return (
        f"{unpaired} {', '.join(others)} and {last} have no name in common: all scans count as different patients. "
        "Where some are of one patient, name these alike, or give paths with a * where the common name is."
    )


def _training(cases: Sequence[Case]) -> list[str]:
    """List the names of the labelled cases of the training part."""
    return [case.name for case in cases if case.label is not None and not case.test]


def _dataset_json(
    name: str,
    channels: Sequence[str],
    ct: Sequence[str],
    labels: dict[str, int],
    cases: Sequence[Case],
    about: Mapping[str, str],
) -> dict[str, Any]:
    """Return the content of ``dataset.json``; ``about`` are further entries of it."""
    names_for_nnunet = ["CT" if channel in ct else channel for channel in channels]
    return {
        "name": name,
        "channel_names": {str(index): channel for index, channel in enumerate(names_for_nnunet)},
        "labels": labels,
        "numTraining": len(_training(cases)),
        "file_ending": FILE_ENDING,
        "overwrite_image_reader_writer": "SimpleITKIOWithReorient",  # canonical axes, for stock planners too
        **about,
        "cmc": {
            "version": VERSION,
            **({} if names_for_nnunet == [*channels] else {"modalities": [*channels]}),
            "present_channels": {case.name: sorted(case.images) for case in cases},
            "subjects": {case.name: case.subject for case in cases},
        },
    }


def _description(dataset_json: dict[str, Any]) -> DatasetDescription:
    """Describe what :func:`_dataset_json` returned, unchecked: all that is wrong with the cases is listed later."""
    cmc = dataset_json["cmc"]
    return DatasetDescription(
        modalities=tuple(modality_names(dataset_json)),
        normalization_names=tuple(dataset_json["channel_names"].values()),
        labels=dataset_json["labels"],
        file_ending=FILE_ENDING,
        present_channels={case: tuple(channels) for case, channels in cmc["present_channels"].items()},
        subjects=cmc["subjects"],
        has_cmc_key=True,
    )


def _new_dataset_folder(dataset_id: int, name: str) -> Path:
    require_set(nnUNet_raw)
    if not 1 <= dataset_id <= 999:
        raise ValueError(f"The dataset ID must be from 1 to 999, but is {dataset_id}: give another with -d.")
    if not re.fullmatch(r"[\w-]+", name):
        raise ValueError(
            f"The dataset name may have letters, digits, _ and - only, but is {name!r}: give another with --name."
        )
    folder = Path(nnUNet_raw, f"Dataset{dataset_id:03d}_{name}")
    if folder.exists():
        raise ValueError(f"{folder} exists already: delete it, or choose another ID.")
    if taken := [other for other in find_candidate_datasets(dataset_id) if other != folder.name]:
        raise ValueError(f"The dataset ID {dataset_id} is taken by {taken[0]}: choose another ID.")
    return folder


def _checked_labels(labels: dict[str, int]) -> dict[str, int]:
    """Return ``labels`` with the background, in the order of their values."""
    labels = dict(sorted({"background": 0, **labels}.items(), key=lambda item: item[1]))
    if list(labels.values()) != list(range(len(labels))) or len(labels) < 2:
        raise ValueError(
            f"nnU-Net needs the classes numbered 1, 2, 3, ... beside the background 0, but they are {labels}: number "
            "them so."
        )
    return labels


def _name_problems(cases: Sequence[Case]) -> list[str]:
    """List cases whose name cannot be that of a file, or is that of another case."""
    files: dict[str, list[str]] = defaultdict(list)
    for case in cases:
        files[case.name].append(str(case.grid_source))
    found = []
    for name, of_case in files.items():
        if not re.fullmatch(r"[^\s./\\][^/\\\x00-\x1f]*", name):
            found.append(
                f"case {name!r}, {', '.join(of_case)}: cannot be the name of a file: use letters, digits, _ and -."
            )
        elif why := name_problem(name):
            found.append(f"case {name}, {', '.join(of_case)}: {why}")
        if len(of_case) > 1:
            found.append(
                f"case {name}, {', '.join(of_case)}: exists more than once, perhaps in the training and in the test "
                "part: give every case a name of its own."
            )
    return found


def _names_alike(cases: Sequence[Case]) -> list[str]:
    """List subjects, and cases of a subject, that may be meant to be one: capitals and blanks apart, they are."""
    alike: dict[tuple[str, str], dict[str, Path]] = defaultdict(dict)
    for case in cases:
        for among, name in (("", case.subject), (case.subject, case.name)):
            alike[among, "".join(name.split()).casefold()].setdefault(name, case.grid_source)
    return [
        f"{' and '.join(f'{name!r} ({file})' for name, file in names.items())} differ only in capitals or blanks: name "
        "them alike if they are of one patient, and clearly apart if they are not."
        for names in alike.values()
        if len(names) > 1
    ]


def _tested_subjects(cases: Sequence[Case]) -> list[str]:
    """List subjects with a labelled case in the training part and a case in the test part."""
    trained = {case.subject: case.name for case in cases if case.label is not None and not case.test}
    tested = {case.subject: case.name for case in cases if case.test}
    return [
        f"subject {subject} is in the training part with a label (case {trained[subject]}) and in the test part (case "
        f"{tested[subject]}), which would test on a patient that was trained on: put all of a subject into one part."
        for subject in sorted(trained.keys() & tested.keys())
        if trained[subject] != tested[subject]  # of one name, which is a problem by itself
    ]


def _print_left_out(left_out: Mapping[Path, str], every_one: bool) -> None:
    for reason in dict.fromkeys(left_out.values()):
        files = [str(file) for file, why in left_out.items() if why == reason]
        shown = files if every_one else files[:5]
        print(f"Left out, {reason}: {', '.join(shown)}{', ...' if len(files) > len(shown) else ''} ({len(files)})")


def _copies(cases: Sequence[Case]) -> list[str]:
    """List scans with a label in the training part that are in the test part, too; print other equal scans."""
    owners = {image: case for case in cases for image in case.images.values()}
    copies: dict[Path, list[Path]] = {}
    for first, file in equal_files(owners):
        copies.setdefault(first, [first]).append(file)
    problems, remarks = [], []
    for files in copies.values():
        trained = [file for file in files if owners[file].label is not None and not owners[file].test]
        tested = [file for file in files if owners[file].test]
        if trained and tested:
            problems.append(
                f"case {owners[tested[0]].name}, {tested[0]}: equals {trained[0]} (case {owners[trained[0]].name}), "
                "which is in the training part with a label, and would be tested on: remove one of them."
            )
        else:
            remarks += [
                f"{files[0]} (case {owners[files[0]].name}) and {file} (case {owners[file].name})" for file in files[1:]
            ]
    if remarks:
        shown = f"{'; '.join(remarks[:5])}{'; ...' if len(remarks) > 5 else ''} ({len(remarks)})"
        print(f"Equal scans; remove one of a pair that is a copy under another name: {shown}")
    return problems


def _print_transforms(cases: Sequence[Case]) -> None:
    apart = []
    for file in dict.fromkeys(file for case in cases for file in (*case.images.values(), case.label) if file):
        with suppress(ValueError):  # an unreadable file, which is a problem of its case
            if distance := distance_of_transforms(file):
                apart.append(f"{file} ({distance:.3g} mm)")
    if apart:
        shown = f"{', '.join(apart[:5])}{', ...' if len(apart) > 5 else ''} ({len(apart)})"
        print(f"qform and sform differ, so programs place the file differently: {shown}")


def _print_plans(folder: Path, plans: Sequence[list[Step]]) -> None:
    print(f"Nothing was written. {folder} would hold:")
    for target, source, how in (step for plan in plans for step in plan):
        print(f"  {target}  {'(absent modality)' if source is None else f'<- {source}'}  {how}")


def _write_manifest(file: Path, cases: Sequence[Case], plans: Sequence[list[Step]]) -> None:
    rows = [
        (case.name, case.subject, target, source.absolute() if source else "", how)
        for case, plan in zip(cases, plans, strict=True)
        for target, source, how in plan
    ]
    columns = ["case", "subject", "file", "source", "how"]
    pd.DataFrame(rows, columns=columns).to_csv(file, index=False, encoding="utf-8", lineterminator="\n")
