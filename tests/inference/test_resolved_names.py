"""The names that are let through are those that nnU-Net has, and all that its planners and ours write."""

import importlib
import pkgutil
from inspect import isclass, signature

import pytest
from nnunetv2.experiment_planning import experiment_planners
from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
from nnunetv2.imageio.reader_writer_registry import LIST_OF_IO_CLASSES, recursive_find_reader_writer_by_name
from nnunetv2.preprocessing.normalization.map_channel_name_to_normalization import (
    channel_name_to_normalization_mapping,
)
from nnunetv2.preprocessing.resampling.utils import recursive_find_resampling_fn_by_name

from nnunet_cmc.inference import resolved_names
from nnunet_cmc.inference.resolved_names import OF_CONFIGURATION, check_dataset_names, check_plans_names
from nnunet_cmc.nnunet_hook.classes import CLASSES
from nnunet_cmc.planners.base import BasePlanner

OURS = signature(BasePlanner).parameters["preprocessor_name"]


def planners() -> list[type]:
    """nnU-Net's, wherever they stand, and ours."""
    walked = pkgutil.walk_packages(experiment_planners.__path__, experiment_planners.__name__ + ".")
    modules = [importlib.import_module(module.name) for module in walked if not module.ispkg]
    found = {value for module in modules for value in vars(module).values() if isclass(value)}
    own = {getattr(importlib.import_module(module), name) for name, module in CLASSES.items() if "Planner" in name}
    return sorted((cls for cls in found | own if issubclass(cls, ExperimentPlanner)), key=lambda cls: cls.__name__)


@pytest.mark.parametrize("planner", planners())
def test_what_a_planner_writes_is_let_through(planner):
    made = object.__new__(planner)
    data, data_kwargs, seg, seg_kwargs = made.determine_resampling()
    probabilities, probabilities_kwargs = made.determine_segmentation_softmax_export_fn()
    configuration = {
        "resampling_fn_data": data.__name__,
        "resampling_fn_data_kwargs": data_kwargs,
        "resampling_fn_seg": seg.__name__,
        "resampling_fn_seg_kwargs": seg_kwargs,
        "resampling_fn_probabilities": probabilities.__name__,
        "resampling_fn_probabilities_kwargs": probabilities_kwargs,
        "preprocessor_name": signature(planner).parameters.get("preprocessor_name", OURS).default,
    }
    check_plans_names({"configurations": {"x": configuration}, "experiment_planner_used": planner.__name__})


def test_every_reader_normalization_and_resampling_of_nnunet():
    for reader in LIST_OF_IO_CLASSES:
        assert reader.__name__ in resolved_names.READERS
    for scheme in channel_name_to_normalization_mapping.values():
        assert scheme.__name__ in resolved_names.NORMALIZATIONS
    for name in resolved_names.READERS:
        assert recursive_find_reader_writer_by_name(name).__name__ == name
    for name in resolved_names.RESAMPLINGS:
        assert recursive_find_resampling_fn_by_name(name).__name__ == name


def test_what_a_dataset_may_say_of_its_reader():
    for content in ({}, {"overwrite_image_reader_writer": None}, {"overwrite_image_reader_writer": "NibabelIO"}):
        check_dataset_names(content)


def test_ours_are_let_through():
    assert {"PercentileNormalization", "CTWindowNormalization"} <= set(OF_CONFIGURATION["normalization_schemes"])
    assert "CMCPreprocessor" in OF_CONFIGURATION["preprocessor_name"]
    assert "CMCReaderWriter" in resolved_names.READERS
    assert "CMCPlannerTiny" in resolved_names.PLANNERS
