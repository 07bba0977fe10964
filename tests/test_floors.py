"""Who may import whom: the floors of docs/contributing.md."""

import sys
from collections import Counter
from itertools import chain

import pytest
from source_files import ROOT, imports, modules

# From the ground up: folder of the package -> its modules, by the beginning of their names; the longest one counts.
# A module may import its own folder and those of lower floors, but not the other folders of its own floor.
FLOORS: list[dict[str, list[str]]] = [
    {
        "utils": ["data.files", "data.parallel", "data.pickles", "networks.checkpoints"],
        "registration": ["registration"],
    },
    {"losses": ["losses"], "networks": ["networks"], "data": ["data"]},
    {"evaluation": ["evaluation"]},
    {"dataset_conversion": ["dataset_conversion"], "planners": ["planners"], "trainers": ["trainers"]},
    {
        "inference": [
            *("predictor", "checked_predictor", "trained_model", "windows", "verify", "resolved_names"),
            "evaluation.explain",
        ],
    },
    {"commands": ["commands", "__main__", ""]},  # "" is the package itself, which loads its interface when asked
]
# what losses and networks may import besides
PURE = {"torch", "numpy", "dynamic_network_architectures", *sys.stdlib_module_names}
# (module, what it imports in spite of the floors) -> why
EXCEPTIONS = {
    ("evaluation.activation_picture", "evaluation.explain"): "FULL, the activation that is drawn brightest",
}
# names that two modules have; the newer ones are being renamed
SHARED_NAMES = {"explain"}


def place(module: str) -> tuple[int, str]:
    """Return floor and folder of ``module``, a dotted name inside the package."""
    found = [
        (len(beginning), floor, folder)
        for floor, folders in enumerate(FLOORS)
        for folder, beginnings in folders.items()
        for beginning in beginnings
        if beginning == "" == module or (beginning and f"{module}.".startswith(f"{beginning}."))
    ]
    assert found, f"{module} stands on no floor: add it to FLOORS"
    return max(found)[1:]


def inside(module: str) -> str:
    return module.removeprefix("nnunet_cmc").removeprefix(".")


def imported(name: str) -> set[str]:
    """Return the modules that a module of the package imports."""
    found = [(module, f"{module}.{thing}") for _, module, thing in imports(modules()[name])]
    return {longer if longer in modules() else module for module, longer in found}


@pytest.mark.parametrize("name", modules())
def test_imports_lead_down(name):
    floor, folder = place(inside(name))
    for other in sorted(imported(name)):
        if other.partition(".")[0] == "nnunet_cmc" and (inside(name), inside(other)) not in EXCEPTIONS:
            below, neighbour = place(inside(other))
            assert below < floor or neighbour == folder, f"{name} ({folder}) imports {other} ({neighbour})"


def test_the_exceptions_are_needed():
    for name, other in EXCEPTIONS:
        assert f"nnunet_cmc.{other}" in imported(f"nnunet_cmc.{name}"), f"{name} no longer imports {other}: delete it"
        assert place(other)[0] >= place(name)[0]


def test_no_two_modules_have_one_name():
    packages = {name.rpartition(".")[0] for name in modules()}
    names = Counter(name.rpartition(".")[2] for name in modules() if name not in packages)
    assert {name for name, count in names.items() if count > 1} == SHARED_NAMES


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
