"""Cases without a label."""

import pytest
from pair_loaders import save

from nnunet_cmc.data.loading.cases import UnlabeledDataset


@pytest.mark.parametrize("case", ["c", "never_preprocessed"])
def test_unlabelled_folder(tmp_path, case):
    save(tmp_path, "c", (0, 1))
    expected = ["c"] if case == "c" else []
    folder = tmp_path if case == "c" else tmp_path / "absent"
    assert UnlabeledDataset.get_identifiers(str(folder)) == expected
