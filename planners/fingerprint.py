"""nnU-Net's fingerprint extraction for our datasets, checked first, and a faster one with fewer samples."""

from os.path import join
from pathlib import Path
from typing import Any

from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor as stock
from nnunetv2.paths import nnUNet_preprocessed, nnUNet_raw

from nnunet_cmc.data.reading.raw_dataset import check_dataset, raw_description
from nnunet_cmc.utils.files import is_json, read_json
from nnunet_cmc.utils.variables import dataset_folder


class DatasetFingerprintExtractor(stock.DatasetFingerprintExtractor):
    """Extract as nnU-Net does, after a check of all files of a dataset with our ``cmc`` key.

    ``nnUNetv2_plan_and_preprocess`` extracts the fingerprint before it meets our planner, and answers a missing or
    unlike channel with an IndexError or an empty RuntimeError.
    """

    def __new__(cls, dataset_name_or_id, num_processes=8, verbose=False) -> Any:
        """Make an extractor of nnU-Net's own class for a dataset without our ``cmc`` key."""
        if cls is DatasetFingerprintExtractor and not _is_ours(dataset_name_or_id):
            return stock.DatasetFingerprintExtractor(dataset_name_or_id, num_processes, verbose)
        return super().__new__(cls)

    def __init__(self, dataset_name_or_id, num_processes=8, verbose=False):
        self.description = raw_description(dataset_name_or_id)
        super().__init__(dataset_name_or_id, num_processes, verbose)

    def run(self, overwrite_existing: bool = False) -> dict:
        """Extract the fingerprint, also written to ``dataset_fingerprint.json``.

        Raises:
            ValueError: a case lacks a file or is not on one grid.
        """
        check_dataset(self.input_folder, self.description)
        file = join(nnUNet_preprocessed, self.dataset_name, "dataset_fingerprint.json")
        try:
            return super().run(overwrite_existing or not is_json(file))  # a killed process may have left half of it
        finally:
            if not is_json(file):
                Path(file).unlink(missing_ok=True)


def _is_ours(dataset_name_or_id: int | str) -> bool:
    try:
        content = read_json(dataset_folder(nnUNet_raw, dataset_name_or_id) / "dataset.json", "")
    except (ValueError, RuntimeError, OSError):  # nnU-Net reports it
        return False
    return isinstance(content, dict) and "cmc" in content


class CMCFingerprintExtractor(DatasetFingerprintExtractor):
    """Extract on canonical axes, as our plans have them, and from 1e6 voxels instead of 1e8.

    Our planners gather intensity statistics of their own, so they lose nothing. The files of any dataset are checked.
    """

    def __init__(self, dataset_name_or_id, num_processes=8, verbose=False):
        super().__init__(dataset_name_or_id, num_processes, verbose)
        self.description.require_plain_labels(type(self).__name__)
        self.num_foreground_voxels_for_intensitystats = 1e6
        self.dataset_json["overwrite_image_reader_writer"] = "SimpleITKIOWithReorient"
