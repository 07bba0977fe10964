"""A tiny dataset of four cases in two modalities, with references and predictions to evaluate; results of stress."""

from functools import partial

import numpy as np
import pytest

from nnunet_cmc.evaluation.metrics import METRICS
from nnunet_cmc.evaluation.stress_testing import conditions
from nnunet_cmc.utils.files import write_json


def _blocks(shift=0, spleen=True):
    labels = np.zeros((6, 12, 14), np.uint8)
    labels[1:4, 2:8, 2 + shift : 7 + shift] = 1
    if spleen:
        labels[3:5, 4:9, 10:13] = 2
    return labels


@pytest.fixture(scope="session")
def write_labels(write_volume):
    """As ``write_volume``, with array axes to the head, to the back and to the patient's left."""
    upright = (1, 0, 0, 0, 1, 0, 0, 0, 1)
    return partial(write_volume, spacing=(1.0, 1.5, 3.0), origin=(5.0, -7.0, 2.0), direction=upright)


@pytest.fixture
def blocks():
    return _blocks


@pytest.fixture
def dataset_json():
    return {
        "channel_names": {"0": "CT", "1": "MR"},
        "labels": {"background": 0, "liver": 1, "spleen": 2},
        "numTraining": 4,
        "file_ending": ".nii.gz",
        "cmc": {"version": 1, "present_channels": {"a": [0], "b": [1], "c": [0, 1], "d": [0]}},
    }


@pytest.fixture
def folders(tmp_path, write_labels):
    """Folders of references and predictions: in b neither has a spleen, in d only the reference has one."""
    reference, prediction = tmp_path / "labelsTs", tmp_path / "predictions"
    for case, shift in {"a": 0, "b": 1, "c": 2, "d": 1}.items():
        write_labels(reference / f"{case}.nii.gz", _blocks(spleen=case != "b"))
        write_labels(prediction / f"{case}.nii.gz", _blocks(shift, spleen=case not in "bd"))
    return reference, prediction


def _save_run(folder, loss, cases=4, undefined=0, names=("CT", "MR")):
    """``stress.json`` of a model that loses ``loss`` of its Dice at the farthest misalignment."""
    folder.mkdir(parents=True)
    entries = []
    for condition in conditions(names):
        far = max(condition.millimetres, condition.degrees) / 20
        mean = {metric: (1 + 9 * loss * far) if metric in ("ASSD", "HD95") else 0.9 - loss * far for metric in METRICS}
        statistics = {metric: {"mean": mean[metric], "undefined": undefined * (metric == "ASSD")} for metric in METRICS}
        entries.append(
            {
                "condition": condition.name,
                "given": "all" if condition.given is None else condition.name,
                "moved": "" if condition.moved is None else names[condition.moved],
                **({"complete": entries[0]} if condition.given is not None else {}),
                **({} if condition.moved is None else {"unmoved": entries[0], "without": entries[0]}),
                "mm": condition.millimetres,
                "degrees": condition.degrees,
                "cases": cases,
                "mean": mean,
                "classes": {"liver": statistics},
            }
        )
    write_json(folder / "stress.json", {"conditions": entries})
    return folder


@pytest.fixture
def save_run():
    return _save_run
