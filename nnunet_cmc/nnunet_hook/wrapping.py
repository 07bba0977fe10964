"""Replace functions of nnU-Net's modules, so that it finds our classes and checks our models.

Other datasets and models are as without the hook.
"""

import functools
import os
import sys
from collections.abc import Callable
from importlib import import_module

from nnunet_cmc.nnunet_hook.classes import CLASSES, STOCK_NAMES, TRAINERS
from nnunet_cmc.nnunet_hook.version import require_supported_nnunet, unsupported_nnunet

MARK = "nnunet_cmc_hook"  # what a function has that is wrapped


def _find_class(original, *args, **kwargs):
    """Answer the names of our classes, in place of nnU-Net's search for a class of a name in a folder."""
    name = str(args[1] if len(args) > 1 else kwargs.get("class_name"))
    module = str(args[2] if len(args) > 2 else kwargs.get("current_module"))
    misspelt = name.startswith("CMC") and name not in CLASSES  # nnU-Net would call the None that it finds
    if name.startswith(tuple(TRAINERS)) or (misspelt and module.startswith("nnunetv2.training")):
        require_supported_nnunet()
        try:
            return import_module("nnunet_cmc.trainers.registry").trainer_class(name)
        except ValueError:
            if not os.environ.get("nnUNet_extTrainer"):  # noqa: SIM112
                raise
            # users may name trainers of their own so; nnU-Net has none of such a name, and would import all of its own
            return None if module.startswith("nnunetv2.") else original(*args, **kwargs)
    if misspelt and module.startswith("nnunetv2.experiment_planning"):
        planners = ", ".join(known for known in CLASSES if known.startswith("CMCPlanner"))
        raise ValueError(f"There is no planner {name}: take one of {planners}.")
    if name not in CLASSES or (name in STOCK_NAMES and unsupported_nnunet()):
        return original(*args, **kwargs)
    require_supported_nnunet()
    return getattr(import_module(CLASSES[name]), name)


def _list_cases(original, raw_dataset_folder, dataset_json=None):
    """Leave out, in a dataset of ours, the files beside the scans whose names begin with a dot, as macOS adds them."""
    cases = original(raw_dataset_folder, dataset_json)
    ours = "cmc" in (dataset_json or {})
    return {case: files for case, files in cases.items() if not case.startswith(".")} if ours else cases


def _initialize(original, self, *args, **kwargs):
    """Let nnU-Net's predictor, once it has a model of ours, look at what it is given and at what it predicts."""
    original(self, *args, **kwargs)
    if self.configuration_manager.preprocessor_name == "CMCPreprocessor":
        import_module("nnunet_cmc.inference.checked_predictor").check(self, original, *args, **kwargs)


# module of nnU-Net -> class in it or "", function -> what is called in its place, with the original as first argument
WRAPPED: dict[str, dict[tuple[str, str], Callable]] = {
    "nnunetv2.utilities.find_class_by_name": {("", "recursive_find_python_class"): _find_class},
    "nnunetv2.utilities.utils": {("", "get_filenames_of_train_images_and_targets"): _list_cases},
    "nnunetv2.inference.predict_from_raw_data": {
        ("nnUNetPredictor", "initialize_from_trained_model_folder"): _initialize,
        ("nnUNetPredictor", "manual_initialization"): _initialize,
    },
}


def wrap(module) -> None:
    """Wrap what :data:`WRAPPED` names in ``module``, once, and in the modules that have imported it from there."""
    for (cls, name), around in WRAPPED[module.__name__].items():
        owner = getattr(module, cls, None) if cls else module
        original = getattr(owner, name, None)
        if original is None or hasattr(original, MARK):
            continue
        wrapper = _wrapped(original, around)
        for other in (owner, *(found for key, found in list(sys.modules.items()) if key.startswith("nnunetv2."))):
            if getattr(other, name, None) is original:
                setattr(other, name, wrapper)


def _wrapped(original: Callable, around: Callable) -> Callable:
    wrapper = functools.wraps(original)(lambda *args, **kwargs: around(original, *args, **kwargs))
    setattr(wrapper, MARK, True)
    return wrapper
