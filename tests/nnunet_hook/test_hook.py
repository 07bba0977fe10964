import importlib
import importlib.metadata
import multiprocessing
import os
import pkgutil
import re
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import nnunetv2
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import nnunet_cmc
import nnunet_cmc.planners
import nnunet_cmc.trainers
from nnunet_cmc.commands.main import main
from nnunet_cmc.nnunet_hook import hook, wrapping
from nnunet_cmc.nnunet_hook import version as versions
from nnunet_cmc.nnunet_hook.classes import CLASSES, TRAINERS
from nnunet_cmc.trainers.recipes import RECIPES


def run_python(code: str, **environment: str) -> str:
    env = {key: value for key, value in os.environ.items() if key != hook.SWITCH} | environment
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    return process.stdout.strip()


def search_for(name: str) -> tuple:
    """nnU-Net's function and its arguments when it looks for a class of this kind."""
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class
    from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name

    if "Trainer" in name:
        return recursive_find_trainer_class_by_name, name
    kind = "preprocessing" if name.endswith(("Preprocessor", "Normalization")) else "experiment_planning"
    return recursive_find_python_class, os.path.join(nnunetv2.__path__[0], kind), name, f"nnunetv2.{kind}"


@pytest.fixture(scope="module")
def spawned():
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool


@pytest.mark.parametrize("name", [*CLASSES, *TRAINERS])
def test_nnunet_finds_our_class_here_and_in_a_spawned_worker(name, spawned):
    function, *arguments = search_for(name)
    cls = function(*arguments)
    assert (cls.__name__, cls.__module__) == (name, {**CLASSES, **TRAINERS}[name])
    assert spawned.submit(function, *arguments).result() is cls


@pytest.mark.parametrize("suffix", ["", "_5epochs", "_smoke"])
def test_nnunet_finds_every_recipe_with_any_suffix(suffix):
    for name in RECIPES:
        function, *arguments = search_for(name + suffix)
        assert function(*arguments).__name__ == name + suffix


def test_nnunet_is_told_the_names_of_recipes_there_are():
    function, *arguments = search_for("CMCTrainerBetter")
    with pytest.raises(ValueError, match="There is no trainer CMCTrainerBetter: take one of CMCTrainer, "):
        function(*arguments)


def test_trainers_of_users_may_have_names_like_ours(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from nnunet_cmc.trainers.cmc_trainer import CMCTrainer\n\nclass CMCTrainerMine(CMCTrainer):\n    pass\n"
    )
    monkeypatch.setenv("nnUNet_extTrainer", str(tmp_path))
    for name, module in (("CMCTrainerMine", "mine"), ("CMCTrainer_noCSC", "nnunet_cmc.trainers.registry")):
        function, *arguments = search_for(name)
        assert function(*arguments).__module__ == module


def test_nnunet_is_told_the_names_of_planners_there_are():
    function, folder, _, package = search_for("CMCPlanner")
    with pytest.raises(ValueError, match=r"There is no planner CMCPlannerResEnc: take one of CMCPlanner, CMCPlannerNN"):
        function(folder, "CMCPlannerResEnc", package)


@pytest.mark.parametrize(
    ("name", "package", "message"),
    [
        ("CMCPlanerNNUNet", "experiment_planning", "There is no planner CMCPlanerNNUNet: take one of CMCPlanner, "),
        ("CMCTrainr", "training.nnUNetTrainer", "There is no trainer CMCTrainr: take one of CMCTrainer, "),
    ],
)
def test_misspelt_names_are_told_to(name, package, message):
    function, *_ = search_for("CMCPlanner")
    folder = os.path.join(nnunetv2.__path__[0], *package.split("."))
    with pytest.raises(ValueError, match=message):
        function(folder, name, f"nnunetv2.{package}")


@pytest.mark.parametrize("name", ["DefaultPreprocessor", "ZScoreNormalization", "ExperimentPlanner", "nnUNetTrainer"])
def test_nnunet_still_finds_its_own(name):
    function, *arguments = search_for(name)
    assert function(*arguments).__module__.startswith("nnunetv2.")


def test_a_class_that_nobody_has_is_not_found():
    from nnunetv2.utilities.find_class_by_name import recursive_find_python_class

    folder = os.path.join(nnunetv2.__path__[0], "preprocessing", "normalization")
    package = "nnunetv2.preprocessing.normalization"
    assert recursive_find_python_class(folder, "CMCNormalization2", package) is None
    assert recursive_find_python_class(folder, class_name="CMCNormalization2", current_module=package) is None
    found = recursive_find_python_class(folder=folder, class_name="CMCPlanner", current_module=package)
    assert found.__module__ == CLASSES["CMCPlanner"]


def test_the_table_names_all_classes_that_nnunet_looks_for():
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.imageio.base_reader_writer import BaseReaderWriter
    from nnunetv2.preprocessing.normalization.default_normalization_schemes import ImageNormalization
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    searched = (
        DatasetFingerprintExtractor,
        ExperimentPlanner,
        BaseReaderWriter,
        DefaultPreprocessor,
        ImageNormalization,
        nnUNetTrainer,
    )
    places = ("preprocessing.normalization", "preprocessing.preprocessor", "reading.reader_writer")
    modules = [f"nnunet_cmc.data.{place}" for place in places]
    for package in (nnunet_cmc.planners, nnunet_cmc.trainers):
        modules += [module.name for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")]
    classes = {
        name: module
        for module in modules
        for name, cls in vars(importlib.import_module(module)).items()
        if isinstance(cls, type) and issubclass(cls, searched) and cls.__module__ == module
    }
    bases = {"BasePlanner", "PairTrainer", "ResumableTrainer", "ReportingTrainer"}  # their subclasses plan and train
    # of their names, in no module
    made = {name: module for name, module in TRAINERS.items() if module.endswith(".registry")}
    assert {name: module for name, module in classes.items() if name not in bases} | made == {**CLASSES, **TRAINERS}


def test_python_starts_with_the_hook_and_nothing_heavy():
    loaded = run_python("import sys; print(*sys.modules)").split()
    assert {name for name in loaded if name.startswith("nnunet_cmc")} == {
        "nnunet_cmc",
        "nnunet_cmc.nnunet_hook",
        "nnunet_cmc.nnunet_hook.hook",
    }
    assert not {"torch", "numpy", "nnunetv2", "batchgenerators"} & set(loaded)


def test_the_hook_costs_milliseconds_at_start_up(tmp_path):
    """All of ours together, compiled as installers leave it; the quickest start, since others may use the machine."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = {"env": {**environment, "PYTHONPYCACHEPREFIX": str(tmp_path)}, "capture_output": True, "text": True}
    microseconds = []
    for _ in range(7):
        process = subprocess.run([sys.executable, "-X", "importtime", "-c", "pass"], **start)
        own = re.findall(r"^import time: +(\d+) \| +\d+ \| +(nnunet_cmc\S*)$", process.stderr, re.MULTILINE)
        assert {name for _, name in own} >= {"nnunet_cmc", "nnunet_cmc.nnunet_hook.hook"}
        microseconds.append(sum(int(time) for time, _ in own))
    assert min(microseconds) < 3000


def test_the_hook_knows_the_modules_that_are_wrapped():
    assert set(hook.WRAPPED) == set(wrapping.WRAPPED)


def test_the_hook_imports_nothing_that_python_has_not_imported():
    """Of an installation without setuptools' finder of editable packages, which imports much of its own."""
    code = (
        f"import os, sys; sys.path.insert(0, {str(Path(nnunet_cmc.__file__).parents[1])!r}); before = {{*sys.modules}};"
        "from nnunet_cmc.nnunet_hook.hook import install; install(); print(*sorted({*sys.modules} - before))"
    )
    process = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["nnunet_cmc", "nnunet_cmc.nnunet_hook", "nnunet_cmc.nnunet_hook.hook"]


def test_the_environment_turns_the_hook_off():
    code = (
        "from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as f;"
        "print(hasattr(f, 'nnunet_cmc_hook'))"
    )
    assert run_python(code) == "True"
    assert run_python(code, **{hook.SWITCH: "0"}) == "False"
    assert run_python(code, **{hook.SWITCH: "1"}) == "True"


OURS, STOCK = "CMCPlannerTiny", ("ExperimentPlanner", "DatasetFingerprintExtractor")
ASK_UNSUPPORTED = f"""
import os, nnunetv2
from nnunetv2.utilities.find_class_by_name import recursive_find_python_class as find
for name in {[OURS, *STOCK]}:
    try:
        print(find(os.path.join(nnunetv2.__path__[0], "experiment_planning"), name, "nnunetv2.experiment_planning"))
    except RuntimeError as error:
        print(error)
"""


def test_our_classes_are_refused_to_an_nnunet_that_we_do_not_know(tmp_path):
    low, high = (".".join(map(str, version)) for version in versions.SUPPORTED)
    metadata = tmp_path / f"nnunetv2-{high}.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: nnunetv2\nVersion: {high}.0\n")
    refused, *stock = run_python(ASK_UNSUPPORTED, PYTHONPATH=str(tmp_path)).splitlines()
    wanted = f"nnunetv2>={low},<{high}"
    assert refused == f'nnunet_cmc works with {wanted}, but {high}.0 is installed: pip install "{wanted}".'
    assert ["nnunetv2.experiment_planning." in cls for cls in stock] == [True, True], "what is nnU-Net's keeps working"


@pytest.mark.parametrize(
    ("version", "supported"),
    [("2.7.9", 0), ("2.8", 1), ("2.8.0", 1), ("2.8.12", 1), ("2.8.1+local", 1), ("2.9rc1", 0), ("2.10", 0), ("3", 0)],
)
def test_versions_in_and_out_of_the_range(monkeypatch, capsys, version, supported):
    monkeypatch.setattr(versions, "SUPPORTED", ((2, 8), (2, 9)))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    assert (versions.unsupported_nnunet() is None) == bool(supported)
    if not supported:
        assert main(["split", "-d", "1", "--folds", "2"]) == 1
        assert f"but {version} is installed" in capsys.readouterr().err


def test_an_nnunet_without_metadata_is_not_refused(monkeypatch):
    def unknown(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", unknown)
    assert versions.unsupported_nnunet() is None


def test_the_range_is_the_one_that_is_required():
    (text,) = [text for text in importlib.metadata.requires("nnunet_cmc") or [] if text.startswith("nnunetv2")]
    low, high = (".".join(map(str, version)) for version in versions.SUPPORTED)
    assert Requirement(text).specifier == SpecifierSet(f">={low},<{high}")


def test_a_hook_that_comes_late_reaches_those_who_have_imported_the_function():
    code = (
        "import os; from nnunetv2.utilities import find_class_by_name, find_objects;"
        "from nnunet_cmc.nnunet_hook.hook import SWITCH, install;"
        "before = hasattr(find_objects.recursive_find_python_class, 'nnunet_cmc_hook');"
        "del os.environ[SWITCH]; install(); install();"
        "f = find_class_by_name.recursive_find_python_class;"
        "print(before, hasattr(f, 'nnunet_cmc_hook'), hasattr(f.__wrapped__, 'nnunet_cmc_hook'),"
        "      find_objects.recursive_find_python_class is f)"
    )
    assert run_python(code, **{hook.SWITCH: "0"}) == "False True False True"


def test_a_predictor_that_was_there_before_is_wrapped_once():
    code = (
        "import os; from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor;"
        "from nnunet_cmc.nnunet_hook.hook import SWITCH, install; name = 'initialize_from_trained_model_folder';"
        "before = hasattr(getattr(nnUNetPredictor, name), '__wrapped__');"
        "del os.environ[SWITCH]; install(); install(); after = getattr(nnUNetPredictor, name);"
        "print(before, hasattr(after, '__wrapped__'), hasattr(after.__wrapped__, '__wrapped__'))"
    )
    assert run_python(code, **{hook.SWITCH: "0"}) == "False True False"


def test_a_reload_keeps_one_wrapper():
    code = (
        "import importlib; from nnunetv2.utilities import find_class_by_name; importlib.reload(find_class_by_name);"
        "f = find_class_by_name.recursive_find_python_class;"
        "print(hasattr(f, 'nnunet_cmc_hook'), hasattr(f.__wrapped__, 'nnunet_cmc_hook'))"
    )
    assert run_python(code) == "True False"


@pytest.mark.parametrize("source", ["", "recursive_find_python_class = None", "def another_function(): pass"])
def test_another_nnunet_without_the_function_is_left_alone(tmp_path: Path, source):
    folder = tmp_path / "nnunetv2" / "utilities"
    folder.mkdir(parents=True)
    (tmp_path / "nnunetv2" / "__init__.py").touch()
    (folder / "find_class_by_name.py").write_text(source)
    code = "import nnunetv2.utilities.find_class_by_name as module; print(module.__file__)"
    assert run_python(code, PYTHONPATH=str(tmp_path)) == str(folder / "find_class_by_name.py")


@pytest.mark.parametrize("source", ["", "class nnUNetPredictor: pass"])
def test_another_predictor_is_left_alone(tmp_path: Path, source):
    folder = tmp_path / "nnunetv2" / "inference"
    folder.mkdir(parents=True)
    (tmp_path / "nnunetv2" / "__init__.py").touch()
    (folder / "predict_from_raw_data.py").write_text(source)
    code = "import nnunetv2.inference.predict_from_raw_data as module; print(module.__file__)"
    assert run_python(code, PYTHONPATH=str(tmp_path)) == str(folder / "predict_from_raw_data.py")


def test_a_loader_that_cannot_be_extended_is_left_alone():
    class Loader:
        __slots__ = ()

        def exec_module(self, module):
            pass

    hook._wrap_after_execution(Loader())
    hook._wrap_after_execution(None)
