"""Intensity statistics per modality, from the labels that training may see and the cases that show the modality."""

from collections.abc import Collection

import numpy as np
from nnunetv2.configuration import default_num_processes
from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.reading.raw_case import read_case, read_label, shown_channels
from nnunet_cmc.utils.parallel import run_parallel

NUM_SAMPLES = 1e6  # voxels over the whole dataset


def intensity_statistics(
    dataset: dict[str, dict], description: DatasetDescription, hidden: Collection[str]
) -> dict[str, dict[str, float]]:
    """Compute statistics of the foreground voxels, as in nnU-Net's fingerprint, for each channel ("0", "1", ...).

    A channel's voxels come from cases that show it and are not ``hidden``. Where these have no foreground, all their
    voxels count; where there are none, the hidden cases do. Either is printed.

    Args:
        dataset: case -> {"images": channel files, "label": file}, the cases of ``imagesTr``.
        hidden: cases whose label some fold must not use.

    Raises:
        ValueError: no case shows a modality.
    """
    names = description.modalities
    visible = [case for case in dataset if case not in hidden]
    rest = [case for case in dataset if case in hidden]
    sources = [
        (visible, False, None),
        (visible, True, "no case with a visible label has foreground in it, so all voxels of these cases count"),
        (rest, False, "every label of it is hidden in some fold, so the hidden ones count"),
        (rest, True, "no case has foreground in it, so all voxels of the cases with hidden labels count"),
    ]
    statistics: dict[str, dict[str, float]] = {}
    for cases, everywhere, note in sources:
        if len(statistics) == len(names) or not cases:
            continue
        voxels = _sample(cases, dataset, description, everywhere)
        for channel, name in enumerate(names):
            if str(channel) not in statistics and len(voxels[channel]):
                statistics[str(channel)] = _statistics(voxels[channel])
                if note:
                    print(f"Intensity statistics of {name}: {note}.")
    for channel, name in enumerate(names):
        if str(channel) not in statistics:
            raise ValueError(
                f"No labelled case shows modality {name} (channel {channel}): add a case to imagesTr that does."
            )
    return {str(channel): statistics[str(channel)] for channel in range(len(names))}


def _sample(
    cases: list[str], dataset: dict[str, dict], description: DatasetDescription, everywhere: bool
) -> list[np.ndarray]:
    """Sample voxels of each channel, as many from every case that shows it."""
    arguments = [
        (dataset[c]["images"], dataset[c]["label"], description, int(NUM_SAMPLES // len(cases)) + 1, everywhere)
        for c in cases
    ]
    samples = run_parallel(_sample_case, arguments, default_num_processes, "Intensity statistics")
    return [np.concatenate(of_channel) for of_channel in zip(*samples, strict=True)]


def _sample_case(
    image_files: list[str], label_file: str, description: DatasetDescription, num_samples: int, everywhere: bool
) -> list[np.ndarray]:
    data, _ = read_case(image_files, description, label_file)
    labels = read_label(label_file, description)
    foreground = np.ones_like(labels) if everywhere else labels
    samples, _ = DatasetFingerprintExtractor.collect_foreground_intensities(foreground, data, num_samples=num_samples)
    shown = shown_channels(data)
    return [np.array(sample if channel in shown else []) for channel, sample in enumerate(samples)]


def _statistics(voxels: np.ndarray) -> dict[str, float]:
    low, median, high = np.percentile(voxels, (0.5, 50.0, 99.5))
    return {
        "mean": float(voxels.mean()),
        "median": float(median),
        "std": float(voxels.std()),
        "min": float(voxels.min()),
        "max": float(voxels.max()),
        "percentile_99_5": float(high),
        "percentile_00_5": float(low),
    }
