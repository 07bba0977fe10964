"""Figures by which a rule might choose how unlabelled scans teach."""

import sys

import contrast_rules
import numpy as np
import pytest

from nnunet_cmc.data.format.dataset_json import DatasetDescription

SHAPE = (40, 8, 8)
LABEL = np.zeros(SHAPE, np.uint8)
LABEL[:4] = 1


def test_separability_is_of_the_voxels_within_10_mm(make_dataset):
    """In one modality no intensities overlap with those around, in the other half of them do."""
    apart = np.where(LABEL, 2.0, 1.0)
    apart[14:] = 3.0  # more than 10 mm away, at 1 mm
    half = np.where(np.arange(8) % 2, apart, 1.0)
    raw = make_dataset({"a": ({0: apart, 1: half}, LABEL)})
    found = contrast_rules.separability(raw, DatasetDescription.read(raw / "dataset.json"))
    assert (found[0, 1], found[1, 1]) == ([pytest.approx(1.0)], [pytest.approx(0.5)])


def test_separability_does_not_ask_which_side_is_brighter(make_dataset):
    raw = make_dataset({"a": ({0: np.where(LABEL, 1.0, 2.0), 1: np.ones(SHAPE)}, LABEL)})
    found = contrast_rules.separability(raw, DatasetDescription.read(raw / "dataset.json"))
    assert (found[0, 1], found[1, 1]) == ([pytest.approx(1.0)], [pytest.approx(0.0)])


def test_a_model_without_its_cases_is_refused(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["contrast_rules.py", "raw", "--model", "folder"])
    with pytest.raises(SystemExit):
        contrast_rules.main()
    assert "--model and --preprocessed need each other: give both or none." in capsys.readouterr().err
