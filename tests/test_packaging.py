"""What is built and installed, tried with real wheels in small environments of their own, without a network."""

import ast
import base64
import csv
import hashlib
import importlib
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path
from zipfile import ZipFile

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from source_files import BUILD_FILES, FOLDERS, ROOT, files, imports, modules

import nnunet_cmc

HOOK = "nnunet_cmc_hook.pth"
PYTHONS = [  # those of the classifiers, "3.11" first
    found
    for line in importlib.metadata.metadata("nnunet_cmc").get_all("Classifier") or []
    if (found := line.removeprefix("Programming Language :: Python :: ")).startswith("3.")
]
# an nnU-Net small enough to be installed here: the one module that the hook is about
NNUNET_SETUP = "from setuptools import setup; setup(name='nnunetv2', version='2.8.1', packages=['nnunetv2.utilities'])"
NNUNET_MODULE = "def recursive_find_python_class(folder, class_name, current_module): return 'stock'"
FIND = (  # the true CMCPlanner needs torch
    "from nnunetv2.utilities import find_class_by_name as module\n"
    "import nnunet_cmc.nnunet_hook.classes as ours\n"
    "ours.CLASSES['CMCPlanner'] = 'nnunet_cmc.nnunet_hook.classes'; ours.CMCPlanner = 'ours'\n"
    "find = module.recursive_find_python_class\n"
    "print(find('', 'CMCPlanner', ''), find('', 'ExperimentPlanner', ''))"
)


def build(project: Path, kind: str) -> Path:
    """A "wheel", "editable" wheel or "sdist" of ``project``, through the interface that pip uses as well."""
    folder = project / "dist" / kind
    folder.mkdir(parents=True)
    code = f"from setuptools.build_meta import build_{kind} as build; build({str(folder)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=project, check=True, capture_output=True)
    (built,) = folder.iterdir()
    return built


@pytest.fixture(scope="module")
def wheels(tmp_path_factory) -> dict[str, Path]:
    """kind -> our wheel, built from the sdist of a copy, since a build leaves files beside the sources."""
    folder = tmp_path_factory.mktemp("nnunet_cmc")
    project = folder / "project"
    for name in FOLDERS:
        shutil.copytree(ROOT / name, project / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in BUILD_FILES:
        shutil.copy(ROOT / name, project)
    sdist = build(project, "sdist")
    shutil.unpack_archive(sdist, folder, filter="data")
    unpacked = folder / sdist.name.removesuffix(".tar.gz")
    assert (unpacked / "constraints.txt").is_file()
    return {kind: build(unpacked, kind) for kind in ("wheel", "editable")}


@pytest.fixture(scope="module")
def nnunet_wheels(tmp_path_factory) -> dict[str, Path]:
    project = tmp_path_factory.mktemp("nnunetv2")
    (project / "setup.py").write_text(NNUNET_SETUP)
    (project / "nnunetv2" / "utilities").mkdir(parents=True)
    (project / "nnunetv2" / "utilities" / "find_class_by_name.py").write_text(NNUNET_MODULE)
    return {kind: build(project, kind) for kind in ("wheel", "editable")}


class Environment:
    def __init__(self, folder: Path):
        venv.create(folder, with_pip=False, symlinks=True)
        self.python = str(folder / "bin" / "python")
        self.folder = folder

    def pip(self, *arguments: str) -> None:
        command = [sys.executable, "-m", "pip", "--python", self.python, *arguments]
        subprocess.run(command, check=True, capture_output=True)

    def run(self, code: str, **environment: str) -> str:
        env = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "NNUNET_CMC"))}
        command = [self.python, "-c", code]
        process = subprocess.run(command, env=env | environment, cwd=self.folder, capture_output=True, text=True)
        assert (process.returncode, process.stderr) == (0, "")
        return process.stdout.strip()

    def files(self) -> set[Path]:
        return {path for path in self.folder.rglob("*") if "__pycache__" not in path.parts}


def test_what_the_tests_import_is_installed_and_is_what_lies_here():
    """An editable package lies here; of any other no file of this folder is imported, though tests start in it."""
    described = [found.read_text("direct_url.json") for found in importlib.metadata.distributions(name="nnunet_cmc")]
    is_editable = any("editable" in json.loads(url).get("dir_info", {}) for url in described if url)
    package = Path(nnunet_cmc.__file__).resolve().parent
    assert (package == ROOT / "nnunet_cmc") == is_editable

    installed = {name: Path(importlib.util.find_spec(name).origin).resolve() for name in files()}
    old = [name for name, file in files().items() if file.read_bytes() != installed[name].read_bytes()]
    assert not old, f"install nnunet_cmc again: its {old} are not those of {ROOT}"
    if not is_editable:
        assert {*package.rglob("*.py")} == {*installed.values()}, "remove the folder build/, and install it again"

    command = [sys.executable, "-c", "import nnunet_cmc; print(nnunet_cmc.__file__)"]
    process = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    assert process.stdout.strip() == nnunet_cmc.__file__


def test_the_wheel_has_every_module_and_template_of_the_four_folders(wheels):
    sources = set()
    for name in FOLDERS:
        package = Path("nnunet_cmc") / ("" if name == "nnunet_cmc" else name)
        found = [file for ending in ("*.py", "templates/*.*") for file in (ROOT / name).rglob(ending)]
        sources |= {str(package / file.relative_to(ROOT / name)) for file in found}
    assert "nnunet_cmc/evaluation/templates/report.html.j2" in sources
    with ZipFile(wheels["wheel"]) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert packed == sources | {HOOK, "nnunet_cmc/py.typed"}


def test_the_interface_is_the_same_for_python_for_type_checkers_and_in_words():
    tree = modules()["nnunet_cmc"]
    (checked,) = [
        node for node in ast.walk(tree) if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
    ]
    typed = {name: f"{module}:{thing}" for part in checked.body for name, module, thing in imports(part)}
    assert sorted(typed) == sorted(nnunet_cmc.__all__) == sorted(nnunet_cmc._MODULES)
    for name, place in typed.items():
        module, _, thing = place.partition(":")
        assert getattr(nnunet_cmc, name) is getattr(importlib.import_module(module), thing)
        assert f"``{name}``" in nnunet_cmc.__doc__
        assert name in dir(nnunet_cmc)
    with pytest.raises(AttributeError, match="has no attribute 'Predicter'"):
        nnunet_cmc.Predicter  # noqa: B018


@pytest.mark.parametrize("kind", ["wheel", "editable"])
def test_the_hook_is_one_line_and_in_the_record(wheels, kind):
    with ZipFile(wheels[kind]) as archive:
        names = archive.namelist()
        content = archive.read(HOOK)
        (record,) = (archive.read(name) for name in names if name.endswith("/RECORD"))
    assert len(names) == len(set(names))
    assert content.count(b"\n") == 1
    assert content.startswith(b"import ")
    rows = {name: (digest, size) for name, digest, size in csv.reader(io.StringIO(record.decode()))}
    assert set(rows) == set(names)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    assert rows[HOOK] == (f"sha256={digest}", str(len(content)))


@pytest.mark.parametrize("nnunet", ["wheel", "editable"])
@pytest.mark.parametrize("ours", ["wheel", "editable"])
def test_installed_it_works_and_uninstalled_it_is_gone(wheels, nnunet_wheels, ours, nnunet, tmp_path):
    environment = Environment(tmp_path)
    environment.pip("install", "--no-index", "--no-deps", str(nnunet_wheels[nnunet]))
    before = environment.files()

    environment.pip("install", "--no-index", "--no-deps", str(wheels[ours]))
    assert environment.run(FIND) == "ours stock"
    assert environment.run(FIND, NNUNET_CMC_HOOK="0") == "stock stock"
    (installed,) = (path for path in environment.files() if path.name == HOOK)

    line = installed.read_text()
    environment.pip("uninstall", "--yes", "nnunet_cmc")
    assert environment.files() == before

    installed.write_text(line)  # if somebody's clean-up leaves it, it is silent
    stock = "from nnunetv2.utilities import find_class_by_name as module"
    assert environment.run(f"{stock}; print(module.recursive_find_python_class('', 'CMCPlanner', ''))") == "stock"


def pinned() -> dict[str, str]:
    """name -> version of constraints.txt"""
    lines = re.sub(r"#.*", "", (ROOT / "constraints.txt").read_text()).split()
    return {canonicalize_name(name): version for name, version in (line.split("==") for line in lines)}


def documentation() -> set[str]:
    """What builds the documentation, which the tests do without."""
    requirements = [Requirement(text) for text in importlib.metadata.requires("nnunet_cmc") or []]
    return {canonicalize_name(r.name) for r in requirements if r.marker and r.marker.evaluate({"extra": "docs"})}


def test_the_constraints_pin_everything_required_within_its_range():
    requirements = [Requirement(text) for text in importlib.metadata.requires("nnunet_cmc") or []]
    assert len(requirements) > 6
    for requirement in requirements:
        assert requirement.specifier.contains(pinned()[canonicalize_name(requirement.name)]), requirement


def test_what_an_index_shows_is_in_the_metadata_and_the_licence_beside_it(wheels):
    with ZipFile(wheels["wheel"]) as archive:
        (metadata,) = (archive.read(name).decode() for name in archive.namelist() if name.endswith("/METADATA"))
        assert any(name.endswith("/licenses/LICENSE") for name in archive.namelist())
    fields, _, description = metadata.partition("\n\n")
    for field in (
        "Name: nnunet_cmc",
        f"Version: {nnunet_cmc.__version__}",
        "Author: nnunet_cmc contributors",
        "License-Expression: Apache-2.0",
        "Requires-Python: <3.14,>=3.11",
        "Description-Content-Type: text/markdown",
        "Provides-Extra: docs",
    ):
        assert field in fields.splitlines()
    assert description == (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_versions_of_python_are_those_of_the_classifiers():
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    required = SpecifierSet(pyproject["project"]["requires-python"])
    assert [f"3.{minor}" for minor in range(30) if f"3.{minor}" in required] == PYTHONS
    assert "target-version" not in pyproject["tool"]["ruff"]  # ruff takes that of requires-python
    assert pyproject["tool"]["mypy"]["python_version"] == PYTHONS[0]


def test_every_package_that_is_imported_is_required():
    imported = {module.partition(".")[0] for tree in modules().values() for _, module, _ in imports(tree)}
    distributions = importlib.metadata.packages_distributions()
    others = imported - set(sys.stdlib_module_names) - {"nnunet_cmc"}
    required = {canonicalize_name(Requirement(text).name) for text in importlib.metadata.requires("nnunet_cmc") or []}
    assert {name for name in others if not {canonicalize_name(d) for d in distributions[name]} & required} == set()


@pytest.mark.parametrize("page", ["README.md", "docs/quickstart.md"])
def test_the_pinned_versions_install_on_the_pythons_that_readers_are_told(page):
    assert f"Python {PYTHONS[0]} to {PYTHONS[-1]}" in (ROOT / page).read_text(encoding="utf-8")
    for name in pinned().keys() - documentation():
        accepted = SpecifierSet(importlib.metadata.metadata(name).get("Requires-Python", ""))
        assert all(python in accepted for python in PYTHONS), f"{name} needs Python {accepted}"


def test_one_version():
    assert importlib.metadata.version("nnunet_cmc") == nnunet_cmc.__version__
