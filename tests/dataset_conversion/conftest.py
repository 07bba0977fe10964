"""Fixtures for converters: nnU-Net's own opinion of a dataset."""

import pytest
from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity


@pytest.fixture
def require_integrity(capfd):
    """``require_integrity(folder)``: nnU-Net's check of the dataset runs to its end without an error or a warning."""

    def require(folder):
        capfd.readouterr()
        verify_dataset_integrity(str(folder), 1)
        said = capfd.readouterr().out
        assert "verify_dataset_integrity Done" in said
        assert "rror:" not in said
        assert "arning" not in said

    return require
