"""How nnU-Net finds our classes.

nnU-Net looks for planners, preprocessors and trainers by name inside its own folders only, through one function,
``nnunetv2.utilities.find_class_by_name.recursive_find_python_class``. A ``.pth`` file of this package (written by
``setup.py``) calls :func:`install` at every start of Python, spawned workers included. From then on, as soon as nnU-Net
imports that function, it is wrapped: the exact names in :data:`CLASSES` are answered by us, all others by nnU-Net.
nnU-Net's predictor is wrapped in the same way: for a model of ours, it looks at the folder of scans first.

This module runs at every start of Python in this environment, so it imports next to nothing.
"""

import os
import sys

TARGET = "nnunetv2.utilities.find_class_by_name"
FUNCTION = "recursive_find_python_class"
PREDICTOR = "nnunetv2.inference.predict_from_raw_data"
SWITCH = "NNUNET_CMC_HOOK"  # "0" turns the hook off
SUPPORTED = ((2, 8), (2, 9))  # nnunetv2 from the first version to below the second, as setup.py says

# class name -> the module that defines it
CLASSES = {
    "DatasetFingerprintExtractor": "nnunet_cmc.planners.fingerprint",  # nnU-Net's own, with a check of our datasets
    "CMCFingerprintExtractor": "nnunet_cmc.planners.fingerprint",
    "CMCPlanner": "nnunet_cmc.planners.cmc_planner",
    "CMCPlannerResEnc": "nnunet_cmc.planners.resenc",
    "CMCPlannerTiny": "nnunet_cmc.planners.tiny",
    "CMCPlannerUniversal": "nnunet_cmc.planners.universal",
    "CMCPreprocessor": "nnunet_cmc.data.preprocessor",
    "CMCReaderWriter": "nnunet_cmc.data.reader_writer",
    "CTPositiveZScoreNormalization": "nnunet_cmc.data.normalization",
    "CTWindowNormalization": "nnunet_cmc.data.normalization",
    "PercentileNormalization": "nnunet_cmc.data.normalization",
    "PositiveZScoreNormalization": "nnunet_cmc.data.normalization",
    "CMCTrainer": "nnunet_cmc.trainers.cmc_trainer",
    "CMCTrainerAdapters": "nnunet_cmc.trainers.adapters",
    "CMCTrainerAsPrinted": "nnunet_cmc.trainers.as_printed",
    "CMCTrainerBaseline": "nnunet_cmc.trainers.ablations",
    "CMCTrainerCopyPaste": "nnunet_cmc.trainers.copy_paste",
    "CMCTrainerCorrectedSchedules": "nnunet_cmc.trainers.ablations",
    "CMCTrainerDeepSupervision": "nnunet_cmc.trainers.deep_supervision",
    "CMCTrainerFewLabels": "nnunet_cmc.trainers.few_labels",
    "CMCTrainerFewLabelsNoCAC": "nnunet_cmc.trainers.few_labels",
    "CMCTrainerFewLabelsNoCSC": "nnunet_cmc.trainers.few_labels",
    "CMCTrainerFewLabelsSupervised": "nnunet_cmc.trainers.few_labels",
    "CMCTrainerFusedAndSplit": "nnunet_cmc.trainers.skip_fusion",
    "CMCTrainerMeanTeacher": "nnunet_cmc.trainers.mean_teacher",
    "CMCTrainerModalityEncoders": "nnunet_cmc.trainers.ablations",
    "CMCTrainerNoCAC": "nnunet_cmc.trainers.ablations",
    "CMCTrainerNoCSC": "nnunet_cmc.trainers.ablations",
    "CMCTrainerNoMIA": "nnunet_cmc.trainers.ablations",
    "CMCTrainerNoModalityDropout": "nnunet_cmc.trainers.ablations",
    "CMCTrainerOneSided": "nnunet_cmc.trainers.ablations",
    "CMCTrainerOnlyModality0": "nnunet_cmc.trainers.ablations",
    "CMCTrainerOnlyModality1": "nnunet_cmc.trainers.ablations",
    "CMCTrainerOnlyModality2": "nnunet_cmc.trainers.ablations",
    "CMCTrainerPlus": "nnunet_cmc.trainers.plus",
    "CMCTrainerPlusNoCAC": "nnunet_cmc.trainers.plus",
    "CMCTrainerSkipFusion": "nnunet_cmc.trainers.skip_fusion",
    "CMCTrainerSkipFusionDeepSupervision": "nnunet_cmc.trainers.deep_supervision",
    "MeanTeacherTrainer": "nnunet_cmc.trainers.mean_teacher",
    "CMCTrainer_smoke": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_demo": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_5epochs": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_10epochs": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_20epochs": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_50epochs": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_100epochs": "nnunet_cmc.trainers.short_runs",
    "CMCTrainer_250epochs": "nnunet_cmc.trainers.short_runs",
    "nnUNetTrainer_cmcbudget": "nnunet_cmc.trainers.comparison.budget",
}
STOCK_NAMES = ("DatasetFingerprintExtractor",)  # that nnU-Net has, too, so that others rely on them
BUDGET = "_cmcbudget"  # any trainer's name with this ending is that trainer at a budget from the environment


def unsupported_nnunet() -> str | None:
    """A sentence if the nnunetv2 that is installed is not one that this package works with."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        installed = version("nnunetv2")
    except PackageNotFoundError:  # a folder on PYTHONPATH, say: nobody can tell
        return None
    parts = [int("".join(filter(str.isdigit, part)) or 0) for part in installed.split(".")[:2]]
    low, high = SUPPORTED
    if low <= tuple(parts) < high:
        return None
    wanted = f">={'.'.join(map(str, low))},<{'.'.join(map(str, high))}"
    return f'nnunet_cmc works with nnunetv2{wanted}, but {installed} is installed: pip install "nnunetv2{wanted}".'


def require_supported_nnunet() -> None:
    """RuntimeError if :func:`unsupported_nnunet`."""
    if problem := unsupported_nnunet():
        raise RuntimeError(problem)


class _Finder:
    """A meta path finder for the modules of :data:`WRAPPED` alone; it leaves the finding to the others."""

    @staticmethod
    def find_spec(fullname, path=None, target=None):
        if fullname not in WRAPPED:
            return None
        for finder in sys.meta_path:
            if finder is _Finder or not hasattr(finder, "find_spec"):
                continue
            spec = finder.find_spec(fullname, path, target)
            if spec is not None:
                _wrap_after_execution(spec.loader)
                return spec
        return None


def _wrap_after_execution(loader):
    def exec_module(module):
        execute(module)
        if wrap := WRAPPED.get(module.__name__):  # some loaders, of zip files for one, serve many modules
            wrap(module)

    try:
        execute = loader.exec_module
        loader.exec_module = exec_module
    except AttributeError:  # a loader that cannot be extended: nnU-Net stays as it is, `nnunet_cmc doctor` tells
        pass


def _wrap(module):
    """Make the function of ``module`` (and of those that have imported it from there) know :data:`CLASSES`."""
    original = getattr(module, FUNCTION, None)
    if original is None or hasattr(original, "nnunet_cmc_classes"):
        return
    import functools
    import importlib

    @functools.wraps(original)
    def recursive_find_python_class(*args, **kwargs):
        name = str(args[1] if len(args) > 1 else kwargs.get("class_name"))
        module = CLASSES.get(name)
        if name.endswith(BUDGET) and name.removesuffix(BUDGET) in CLASSES:
            module = CLASSES["nnUNetTrainer_cmcbudget"]
        if module is None or (name in STOCK_NAMES and unsupported_nnunet()):
            return original(*args, **kwargs)
        require_supported_nnunet()
        return getattr(importlib.import_module(module), name)

    recursive_find_python_class.nnunet_cmc_classes = CLASSES  # type: ignore[attr-defined]
    for name, other in list(sys.modules.items()):
        if name.startswith("nnunetv2.") and getattr(other, FUNCTION, None) is original:
            setattr(other, FUNCTION, recursive_find_python_class)


def _wrap_predictor(module):
    """Make the predictor of ``module`` look at a folder of scans before it sorts the files into cases.

    nnU-Net answers a file without a channel number with an IndexError, and a folder without scans with success.
    """
    predictor = getattr(module, "nnUNetPredictor", None)
    original = getattr(predictor, "_manage_input_and_output_lists", None)
    if original is None or hasattr(original, "__wrapped__"):
        return
    import functools
    import importlib

    @functools.wraps(original)
    def _manage_input_and_output_lists(self, list_of_lists_or_source_folder, *args, **kwargs):
        folder = list_of_lists_or_source_folder
        if isinstance(folder, str) and self.configuration_manager.preprocessor_name == "CMCPreprocessor":
            importlib.import_module("nnunet_cmc.data.raw_case").check_names(folder, self.dataset_json)
        return original(self, folder, *args, **kwargs)

    predictor._manage_input_and_output_lists = _manage_input_and_output_lists  # type: ignore[union-attr]


# module of nnU-Net -> what is done to it once it has been imported
WRAPPED = {TARGET: _wrap, PREDICTOR: _wrap_predictor}


def install() -> None:
    """Put the hook in place, once; without effect where the environment says ``NNUNET_CMC_HOOK=0``."""
    if os.environ.get(SWITCH) == "0" or _Finder in sys.meta_path:
        return
    sys.meta_path.insert(0, _Finder)  # type: ignore[arg-type]
    for name, wrap in WRAPPED.items():
        if name in sys.modules:
            wrap(sys.modules[name])
