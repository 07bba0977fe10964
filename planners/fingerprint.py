"""nnU-Net's fingerprint extraction for datasets of ours: checked first, and on request in a fraction of the time."""

from nnunetv2.experiment_planning.dataset_fingerprint import fingerprint_extractor as stock

from nnunet_cmc.data.raw_dataset import check_dataset


class DatasetFingerprintExtractor(stock.DatasetFingerprintExtractor):
    """nnU-Net's own, which for a dataset with our ``cmc`` key looks at all files first.

    ``nnUNetv2_plan_and_preprocess`` extracts the fingerprint before it meets our planner, and answers a missing or
    unlike channel with an IndexError or an empty RuntimeError.
    """

    def run(self, overwrite_existing: bool = False) -> dict:
        """The fingerprint, also written to ``dataset_fingerprint.json``.

        Raises:
            ValueError: a case lacks a file or is not on one grid.
        """
        if "cmc" in self.dataset_json:
            check_dataset(self.input_folder, self.dataset_json)
        return super().run(overwrite_existing)


class CMCFingerprintExtractor(DatasetFingerprintExtractor):
    """The same on canonical axes, as our plans, and from 1e6 voxels instead of 1e8.

    Our planners gather intensity statistics of their own, so nothing is lost.
    """

    def __init__(self, dataset_name_or_id, num_processes=8, verbose=False):
        super().__init__(dataset_name_or_id, num_processes, verbose)
        self.num_foreground_voxels_for_intensitystats = 1e6
        self.dataset_json["overwrite_image_reader_writer"] = "SimpleITKIOWithReorient"
