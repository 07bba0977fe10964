"""What our planners share: the checks of arguments and data, the intensity statistics, the files."""

import shutil
from abc import abstractmethod
from functools import partial
from os.path import isfile, join
from typing import Any

import numpy as np
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.paths import nnUNet_preprocessed
from nnunetv2.utilities.dataset_name_id_conversion import convert_dataset_name_to_id, maybe_convert_to_dataset_name
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from nnunet_cmc.data.format.plans_json import NETWORK, read_plans
from nnunet_cmc.data.format.splits import hidden_cases, splits_in_force
from nnunet_cmc.data.preprocessing.normalization import describe_normalization
from nnunet_cmc.data.preprocessing.preprocessor import CMCPreprocessor
from nnunet_cmc.data.reading.grid import read_grid
from nnunet_cmc.data.reading.raw_dataset import check_dataset, raw_description
from nnunet_cmc.data.reading.reader_writer import CMCReaderWriter
from nnunet_cmc.networks.cmcnet import require_several
from nnunet_cmc.planners.intensities import intensity_statistics
from nnunet_cmc.utils.files import atomic_write, read_json, write_json
from nnunet_cmc.utils.formatting import dimensions, millimetres

FINGERPRINT = ("spacings", "shapes_after_crop", "median_relative_size_after_cropping")  # what nnU-Net's planners read
STOCK_PREPROCESSOR = "DefaultPreprocessor"  # what nnUNetv2_plan_and_preprocess passes when nobody asked for anything


class BasePlanner(ExperimentPlanner):
    """Plan one 3-D configuration for our reader and preprocessor; a subclass decides patch, spacing and network.

    Args:
        dataset_name_or_id: of a dataset in raw format that has a ``dataset_fingerprint.json``.
        gpu_memory_target_in_gb: of a training; by default the class's own.
        preprocessor_name: nothing but nnU-Net's default, which stands for :class:`CMCPreprocessor`.
        plans_name: by default the class's own.
        overwrite_target_spacing: three floats, mm along D, H, W of canonical axes, instead of the planned spacing.
        suppress_transpose: leaves the axes in canonical order, where the planner would transpose them.

    Raises:
        ValueError: another preprocessor, a spacing that is not three positive numbers, no such dataset, an unsound
            ``dataset.json``, or labels that are regions or to be ignored.
    """

    plans_name: str
    gpu_memory_gb: float = 24
    learning_rate: float
    plans: dict[str, Any]

    def __init__(
        self,
        dataset_name_or_id,
        gpu_memory_target_in_gb=None,
        preprocessor_name=STOCK_PREPROCESSOR,
        plans_name=None,
        overwrite_target_spacing=None,
        suppress_transpose=False,
    ):
        ours = CMCPreprocessor.__name__
        if preprocessor_name not in (STOCK_PREPROCESSOR, ours):
            raise ValueError(
                f"{type(self).__name__} plans the preprocessor {ours}, but -preprocessor_name asks for "
                f"{preprocessor_name}: omit -preprocessor_name."
            )
        if overwrite_target_spacing is not None and (
            len(overwrite_target_spacing) != 3 or not all(0 < float(s) < np.inf for s in overwrite_target_spacing)
        ):
            raise ValueError(
                f"-overwrite_target_spacing takes three positive numbers (mm), not {list(overwrite_target_spacing)}."
            )
        if gpu_memory_target_in_gb is not None and not gpu_memory_target_in_gb > 0:
            raise ValueError(
                f"-gpu_memory_target takes a number of GB above 0, the GPU's memory, not {gpu_memory_target_in_gb:g}."
            )
        self.description = raw_description(dataset_name_or_id)
        self.description.require_plain_labels(type(self).__name__)
        require_several(len(self.description.modalities))
        name = maybe_convert_to_dataset_name(dataset_name_or_id)
        fingerprint = join(nnUNet_preprocessed, name, "dataset_fingerprint.json")
        found = read_json(fingerprint, f"run {_extract(name)}")
        if absent := [key for key in FINGERPRINT if not isinstance(found, dict) or key not in found]:
            raise ValueError(f"{fingerprint} has no {absent[0]}: run {_extract(name)}.")
        splits_in_force(name)  # where files disagree, nnU-Net would stop without an explanation
        super().__init__(
            dataset_name_or_id,
            preprocessor_name=ours,
            plans_name=plans_name or self.plans_name,
            overwrite_target_spacing=overwrite_target_spacing,
            suppress_transpose=suppress_transpose,
        )
        self.dataset_json.setdefault("numTraining", len(self.dataset))
        self.gpu_memory_target = self.gpu_memory_gb if gpu_memory_target_in_gb is None else gpu_memory_target_in_gb

    @abstractmethod
    def decide(self) -> dict[str, Any]:
        """Return what the data decide of the plans.

        Returns:
            transposition, median shape and spacing, the configuration ``3d_fullres`` under ``configurations``, and a
            sentence each as ``spacing_reason`` and ``memory_reason``.
        """

    def determine_reader_writer(self):
        """Choose canonical axes, so that left is left in every modality; predictions return to the input's grid."""
        return CMCReaderWriter

    def plan_experiment(self) -> dict:
        """Make the plans, write them and a copy of ``dataset.json`` to the preprocessed folder, and return them.

        Raises:
            ValueError: a case that cannot be read, a modality without a labelled case, or a fingerprint of other scans,
                or on other axes than the canonical ones of the plans.
        """
        check_dataset(self.raw_dataset_folder, self.description)
        self._require_own_fingerprint()
        splits_file = splits_in_force(self.dataset_name)
        hidden = set() if splits_file is None else hidden_cases(splits_file)
        # before anything is written, which nnU-Net's planner does: every scan is read here, and may be damaged
        statistics = intensity_statistics(self.dataset, self.description, hidden)
        decided = self.decide()
        print(f"Target spacing: {decided['spacing_reason']}")
        print(f"GPU memory: {decided['memory_reason']}")
        self.plans = {
            "dataset_name": self.dataset_name,
            "plans_name": self.plans_identifier,
            "image_reader_writer": self.determine_reader_writer().__name__,
            "experiment_planner_used": type(self).__name__,
            "label_manager": "LabelManager",
            "foreground_intensity_properties_per_channel": statistics,
            **decided,
        }
        with atomic_write(join(nnUNet_preprocessed, self.dataset_name, "dataset.json")) as copy:
            shutil.copyfile(join(self.raw_dataset_folder, "dataset.json"), copy)
        print(
            describe_normalization(self.description, decided["configurations"]["3d_fullres"]["normalization_schemes"])
        )
        self.write_plans(self.plans)
        return self.plans

    def _require_own_fingerprint(self) -> None:
        """Refuse a fingerprint of other scans, which nnU-Net keeps of a dataset that is converted again, or other axes.

        nnU-Net's own extractor finds other axes by another reader, where those of the files are in another order.
        """
        spacings, shapes = (self.dataset_fingerprint[key] for key in ("spacings", "shapes_after_crop"))
        if len(spacings) != len(self.dataset):
            raise self._of_other_scans(f"it has {len(spacings)} case(s), the dataset {len(self.dataset)}")
        alike = partial(np.allclose, rtol=1e-3)
        for files, found, cropped in zip(self.dataset.values(), spacings, shapes, strict=True):
            file = files["images"][0]
            grid = read_grid(file)
            canonical = grid.canonical_spacing()
            wrong, right = (millimetres(spacing, digits=6) for spacing in (found, canonical))
            if not alike(sorted(found), sorted(canonical)):
                raise self._of_other_scans(f"its spacing of {file} is {wrong}, the file's {right}")
            if np.any(np.sort(cropped) > np.sort(grid.size)):
                raise self._of_other_scans(
                    f"its size of {file} is {dimensions(cropped)}, the file's {dimensions(grid.size)}"
                )
            if not alike(found, canonical):
                raise ValueError(
                    f"dataset_fingerprint.json has the spacing {wrong} of {file}, which is {right} on the canonical "
                    f"axes that our planners need: run {_extract(self.dataset_name)}."
                )
            if np.any(np.greater(cropped, grid.canonical_size())):  # where the spacing is the same along all axes
                raise ValueError(
                    f"dataset_fingerprint.json has the size {dimensions(cropped)} of {file}, which is "
                    f"{dimensions(grid.canonical_size())} on the canonical axes that our planners need: run "
                    f"{_extract(self.dataset_name)}."
                )

    def _of_other_scans(self, why: str) -> ValueError:
        return ValueError(
            f"dataset_fingerprint.json was made of other scans ({why}): run {_extract(self.dataset_name)}."
        )

    def write_plans(self, plans: dict) -> None:
        """Write the plans. Of an older file, only configurations that inherit from these plans' are kept."""
        file = join(nnUNet_preprocessed, self.dataset_name, self.plans_identifier + ".json")
        kept, older = plans["configurations"], self._older_configurations(file)
        while inheriting := {
            name: configuration
            for name, configuration in older.items()
            if name not in kept and configuration.get("inherits_from") in kept and "previous_stage" not in configuration
        }:
            kept |= inheriting
        for name in older:
            if name not in kept:
                print(f"Removing configuration {name} from {file}: {type(self).__name__} does not plan it.")
        recursive_fix_for_json_export(plans)
        write_json(file, plans)
        print(f"Plans were saved to {file}")

    @staticmethod
    def _older_configurations(file: str) -> dict[str, dict]:
        try:
            return read_plans(file)["configurations"]
        except ValueError as error:
            if isfile(file):
                print(f"Writing {file} anew: {error}")
            return {}

    def given_spacing(self) -> tuple[np.ndarray, str] | None:
        """Return the spacing ``(3,)`` that the user has given, in mm along D, H, W, and a sentence that says so."""
        if self.overwrite_target_spacing is None:
            return None
        given = np.array(self.overwrite_target_spacing, dtype=float)
        return given, f"{millimetres(given)}, as -overwrite_target_spacing says."

    @staticmethod
    def architecture(**arguments: Any) -> dict[str, Any]:
        """Name our network and its arguments in the form in which nnU-Net reads an architecture."""
        return {"network_class_name": NETWORK, "_kw_requires_import": [], "arch_kwargs": arguments}


def _extract(dataset_name: str) -> str:
    number = convert_dataset_name_to_id(dataset_name)
    return f"nnUNetv2_extract_fingerprint -d {number} -fpe CMCFingerprintExtractor --clean"
