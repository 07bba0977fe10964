"""Who may import whom: the layers of docs/contributing.md."""

import sys
from collections import Counter
from itertools import chain

import pytest
from source_files import ROOT, imports, modules

# From the lowest up. A module may import its own folder and those of lower layers, but not the other folders of its own
# layer. What lies in the package itself loads its interface when asked, and belongs to the topmost layer.
LAYERS = [
    {"utils", "nnunet_hook"},
    {"losses", "networks", "data"},
    {"evaluation"},
    {"dataset_conversion", "planners", "trainers"},
    {"inference"},
    {"commands"},
]
# of the package `data`, from the lowest up
STAGES = ["format", "reading", "preprocessing", "loading"]
# what losses and networks may import besides
PURE = {"torch", "numpy", "dynamic_network_architectures", "monai", *sys.stdlib_module_names}


def place(module: str) -> tuple[int, str]:
    """Return layer and folder of ``module``, a dotted name inside the package."""
    folder = "commands" if module in ("", "__main__") else module.partition(".")[0]
    layers = [number for number, folders in enumerate(LAYERS) if folder in folders]
    assert layers, f"{module} is in no layer: add its folder to LAYERS"
    return layers[0], folder


def inside(module: str) -> str:
    return module.removeprefix("nnunet_cmc").removeprefix(".")


def imported(name: str) -> set[str]:
    """Return the modules that a module of the package imports."""
    found = [(module, f"{module}.{thing}") for _, module, thing in imports(modules()[name])]
    return {longer if longer in modules() else module for module, longer in found}


@pytest.mark.parametrize("name", modules())
def test_imports_lead_down(name):
    layer, folder = place(inside(name))
    for other in sorted(imported(name)):
        if other.partition(".")[0] == "nnunet_cmc":
            below, neighbour = place(inside(other))
            assert below < layer or neighbour == folder, f"{name} ({folder}) imports {other} ({neighbour})"


@pytest.mark.parametrize("stage", STAGES)
def test_stages_of_data_import_themselves_and_earlier_ones(stage):
    later = STAGES[STAGES.index(stage) + 1 :]
    for name in modules():
        if inside(name).startswith(f"data.{stage}."):
            wrong = [other for other in imported(name) if inside(other).startswith(tuple(f"data.{s}" for s in later))]
            assert not wrong, f"{name} imports {wrong}"


def test_no_two_modules_have_one_name():
    packages = {name.rpartition(".")[0] for name in modules()}
    names = Counter(name.rpartition(".")[2] for name in modules() if name not in packages)
    assert not [name for name, count in names.items() if count > 1]


def test_losses_and_networks_know_torch_alone():
    pure = [name for name in modules() if place(inside(name))[1] in ("losses", "networks")]
    assert len(pure) > 15
    for name in pure:
        packages = {module.partition(".")[0] for module in imported(name)} - {"nnunet_cmc"}
        assert packages <= PURE, f"{name} imports {sorted(packages - PURE)}"


def test_nothing_imports_tests_or_benchmarks():
    files = chain((ROOT / "tests").rglob("*.py"), (ROOT / "benchmarks").rglob("*.py"))
    theirs = {"tests", "benchmarks", *(file.stem for file in files)}
    for name in modules():
        packages = {module.partition(".")[0] for module in imported(name)}
        assert not packages & theirs, f"{name} imports {sorted(packages & theirs)}"
