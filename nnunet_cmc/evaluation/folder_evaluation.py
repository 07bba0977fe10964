"""Evaluation of a folder of predicted label maps against a folder of reference label maps."""

from collections.abc import Collection
from os import PathLike
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.grid import read_grid
from nnunet_cmc.data.reading.raw_case import require_one_grid
from nnunet_cmc.data.reading.voxels import format_value, out_of_memory, read_image
from nnunet_cmc.evaluation.label_maps import classes_of, label_maps, mask_of, modalities_of
from nnunet_cmc.evaluation.metrics import NSD_TOLERANCE, compute_metrics, require_tolerance
from nnunet_cmc.evaluation.results import CaseResult, Evaluation, Label
from nnunet_cmc.utils.parallel import run_parallel


def evaluate_folder(
    reference_folder: str | PathLike,
    prediction_folder: str | PathLike,
    dataset_json: DatasetDescription | dict,
    processes: int = 1,
    tolerance: float = NSD_TOLERANCE,
    cases: Collection[str] | None = None,
    progress: bool = True,
) -> Evaluation:
    """Compute the metrics of every case of ``reference_folder``, or of ``cases``; files have one name in both folders.

    Args:
        dataset_json: a ``dataset.json``, parsed, or its content.
        processes: cases evaluated at the same time, each in a process of its own; 1 starts none.
        tolerance: of NSD, in mm.
        progress: show a progress bar.

    Raises:
        ValueError: no such tolerance, no reference, an unknown one in ``cases``, a missing prediction, a file that
            cannot be read, different grids, or a label value that ``dataset.json`` does not have.
    """
    require_tolerance(tolerance)
    description = DatasetDescription.of(dataset_json)
    files = matched_files(reference_folder, prediction_folder, description.file_ending, cases)
    classes, ignore = classes_of(description)
    tasks = [(case, modalities_of(description, case), *own, classes, ignore, tolerance) for case, own in files.items()]
    results = run_parallel(_evaluate_case, tasks, processes, "Evaluating", progress)
    predicted, references = (label_maps(f, description.file_ending) for f in (prediction_folder, reference_folder))
    return Evaluation(classes, tolerance, results, [case for case in predicted if case not in references])


def matched_files(
    reference_folder: str | PathLike,
    prediction_folder: str | PathLike,
    ending: str,
    cases: Collection[str] | None = None,
) -> dict[str, tuple[Path, Path]]:
    """Return reference and prediction of each case after a check of names and grids; see :func:`evaluate_folder`."""
    references, predictions = label_maps(reference_folder, ending), label_maps(prediction_folder, ending)
    if cases is not None:
        if unknown := [case for case in cases if case not in references]:
            raise ValueError(f"{reference_folder} has no label map of {', '.join(unknown)}: correct cases.")
        references = {case: file for case, file in references.items() if case in cases}
    if not references:
        raise ValueError(f"{reference_folder} has no label map ending in {ending}: give the folder of the references.")
    if missing := [case for case in references if case not in predictions]:
        raise ValueError(
            f"{prediction_folder} lacks the predictions of {len(missing)} of {len(references)} reference cases: "
            f"{', '.join(missing)}; predict them, or give a reference folder without them."
        )
    files = {case: (file, predictions[case]) for case, file in references.items()}
    for case, of_case in files.items():
        require_one_grid(case, of_case, "bring the prediction onto the grid of the reference")
    return files


def _evaluate_case(
    case: str,
    modalities: str,
    reference_file: Path,
    prediction_file: Path,
    classes: dict[str, Label],
    ignore: int | None,
    tolerance: float,
) -> CaseResult:
    known = {0} | {value for label in classes.values() for value in np.atleast_1d(label).tolist()}
    reference, spacing = _read_labels(case, reference_file, known if ignore is None else known | {ignore})
    prediction, _ = _read_labels(case, prediction_file, known)
    ignored = None if ignore is None else reference == ignore
    metrics = {
        name: compute_metrics(mask_of(reference, label), mask_of(prediction, label), spacing, tolerance, ignored)
        for name, label in classes.items()
    }
    return CaseResult(case, modalities, str(reference_file), str(prediction_file), metrics)


def _read_labels(case: str, file: Path, known: set[int]) -> tuple[np.ndarray, tuple[float, ...]]:
    """Read a label map ``(D, H, W)``; returns it and its voxel size in mm along the array axes."""
    try:
        image = read_image(file)
        labels = sitk.GetArrayFromImage(image)
        values = np.unique(labels).tolist()
    except ValueError as error:
        raise ValueError(f"Case {case}: {file} {error}: write it again.") from error
    except MemoryError as error:
        raise ValueError(
            f"Case {case}: {file} {out_of_memory(read_grid(file).size)}: use fewer processes, -np."
        ) from error
    if unknown := sorted(set(values) - known):
        raise ValueError(
            f"Case {case}: {file} has the label value(s) {', '.join(map(format_value, unknown[:5]))}, but "
            f"dataset.json has {', '.join(map(str, sorted(known)))}: correct the file or the labels in dataset.json."
        )
    return labels, image.GetSpacing()[::-1]
