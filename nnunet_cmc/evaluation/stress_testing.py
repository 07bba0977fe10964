"""Stress test of a model: predictions with modalities missing, or with one misaligned with the others."""

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout
from itertools import combinations
from os import PathLike
from pathlib import Path

from tqdm import tqdm

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.format.scan_folder import cases_to_read
from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
from nnunet_cmc.evaluation.label_maps import label_maps
from nnunet_cmc.evaluation.results import Evaluation
from nnunet_cmc.evaluation.shown_channels import Condition, input_files, present_files
from nnunet_cmc.utils.files import hidden_folder

MILLIMETRES = (5.0, 10.0, 20.0)
DEGREES = (5.0, 10.0, 20.0)

PER_PROCESS = 4  # cases that are predicted at once: the bar moves, and processes start rarely (they take seconds)

# Takes a file for every channel of each case, and each case's output file without its ending.
Predict = Callable[[list[list[str]], list[str]], None]


def conditions(names: Sequence[str]) -> list[Condition]:
    """Return the conditions of a stress test of modalities of these names; the first leaves the cases unchanged.

    ValueError if two would have the same folder of predictions.
    """
    subsets = [subset for size in range(len(names) - 1, 0, -1) for subset in combinations(range(len(names)), size)]
    result = [Condition("all"), *(Condition("+".join(names[c] for c in subset), subset) for subset in subsets)]
    for channel, name in enumerate(names):
        result += [Condition(f"{name} {d:g} mm", moved=channel, millimetres=d) for d in MILLIMETRES]
        result += [Condition(f"{name} {a:g} degrees", moved=channel, degrees=a) for a in DEGREES]
    folders = [condition.folder for condition in result]
    if twice := [folder for folder in folders if folders.count(folder) > 1]:
        raise ValueError(
            f"With modalities of the names {', '.join(names)}, two conditions of the stress test would both be "
            f"{twice[0]}: rename one in the dataset.json of the model."
        )
    return result


def find_multimodal_cases(
    image_folder: str | PathLike, reference_folder: str | PathLike, description: DatasetDescription
) -> dict[str, dict[int, str]]:
    """Find the files by channel of the cases that have several modalities.

    Raises:
        ValueError: a case is malformed (see :func:`check_case`), none has several modalities, or one lacks a reference.
    """
    folder, ending = Path(image_folder), description.file_ending
    files = cases_to_read(folder, description)
    cases = {}
    for case, images in files.items():
        present = present_files(images, description)
        if len(present) > 1:
            cases[case] = present
    if not cases:
        raise ValueError(
            f"{folder} has no case with several modalities ({len(files)} case(s) in all): nothing can be left out or "
            "misaligned; give the folder of test scans that have two or more."
        )
    if missing := sorted(set(cases) - set(label_maps(reference_folder, ending))):
        raise ValueError(
            f"{reference_folder} lacks the references of {len(missing)} of {len(cases)} cases: {', '.join(missing)}; "
            "add them, or remove the scans."
        )
    return cases


def stress_test(
    predict: Predict,
    cases: Mapping[str, Mapping[int, str]],
    reference_folder: str | PathLike,
    description: DatasetDescription,
    output: str | PathLike,
    *,
    processes: int = 1,
    seed: int = 0,
) -> dict[Condition, Evaluation]:
    """Predict and evaluate the cases under every condition.

    Args:
        predict: gets :data:`PER_PROCESS` cases for each process at once, or one where there is one process, but none
            that ``output`` has already, so interrupted work resumes.
        cases, reference_folder: of :func:`find_multimodal_cases`; the references stay where they are when a modality
            moves.
        output: gets ``predictions/CONDITION/`` and ``log.txt`` with what ``predict`` prints.
        seed: of the directions; one per case and moved modality, the same at every distance.

    Raises:
        ValueError: see :func:`evaluate_folder`.
    """
    ending, names, output = description.file_ending, description.modalities, Path(output)
    todo = {one: [case for case in cases if one.applies_to(list(cases[case]))] for one in conditions(names)}
    todo = {condition: concerned for condition, concerned in todo.items() if concerned}
    at_once = 1 if processes <= 1 else PER_PROCESS * processes
    evaluations = {}
    output.mkdir(parents=True, exist_ok=True)
    number = sum(map(len, todo.values()))
    with open(output / "log.txt", "a", encoding="utf-8") as log, tqdm(total=number, unit="case") as bar:
        for condition, concerned in todo.items():
            bar.set_description(condition.name)
            folder = output / "predictions" / condition.folder
            folder.mkdir(parents=True, exist_ok=True)
            waiting = [case for case in concerned if not (folder / (case + ending)).exists()]
            bar.update(len(concerned) - len(waiting))
            for part in (waiting[i : i + at_once] for i in range(0, len(waiting), at_once)):
                with hidden_folder(output) as made, hidden_folder(folder) as predicted, redirect_stdout(log):
                    inputs = [
                        input_files(condition, case, cases[case], len(names), ending, made, seed) for case in part
                    ]
                    predict(inputs, [str(predicted / case) for case in part])
                    for case in part:  # a file in the folder is complete, even after a kill
                        os.replace(predicted / (case + ending), folder / (case + ending))
                bar.update(len(part))
            evaluations[condition] = evaluate_folder(
                reference_folder, folder, description, processes, cases=concerned, progress=False
            )
    return evaluations
