"""Files for the platform that hosts the project: they are well-formed, and name what is there.

The Dockerfile and the workflows are only read here, but for one step; what builds and runs them are the weekly job
``image`` and the platform.
"""

import ast
import json
import os
import re
import runpy
import shlex
import shutil
import subprocess
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from source_files import BUILD_FILES, FOLDERS, ROOT

import nnunet_cmc
from nnunet_cmc.nnunet_hook.version import SUPPORTED

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
CI = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
PYTHONS = re.findall(r"Python :: (3\.\d+)", "\n".join(PYPROJECT["project"]["classifiers"]))


def read(file: Path) -> dict:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def jobs(workflow: Path) -> list[dict]:
    return list(read(workflow)["jobs"].values())


def commands(job: dict) -> str:
    return "\n".join(step["run"] for step in job["steps"] if "run" in step)


def images() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile in their order: name, and what follows it."""
    text = re.sub(r"^#.*\n", "", (ROOT / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    return [(name, arguments.strip()) for name, _, arguments in (line.partition(" ") for line in lines) if name]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.stem)
def test_a_workflow_is_complete_and_its_files_are_there(workflow):
    content = read(workflow)
    assert content["name"]
    assert content[True], "YAML reads the key on as true"
    for job in jobs(workflow):
        assert job["runs-on"]
        assert job["timeout-minutes"] <= 360
        for step in job["steps"]:
            assert ("run" in step) != ("uses" in step)
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step.get("uses", "actions/checkout@v4"))
        words = [word for line in commands(job).splitlines() for word in shlex.split(line, comments=True)]
        for word in words:
            if word.startswith(".ci/"):
                assert os.access(ROOT / word, os.X_OK), word
        for option, file in pairwise(words):
            assert option != "-c" or (ROOT / file).exists(), file


def test_the_tests_run_on_every_python_and_on_a_mac():
    (job,) = jobs(GITHUB / "workflows" / "tests.yml")
    matrix = job["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    assert "macos-latest" in [entry["system"] for entry in matrix["include"]]
    assert commands(job) == ".ci/run"


def test_nnunets_main_branch_is_tested_as_readers_are_told_to_test(tmp_path):
    weekly = read(GITHUB / "workflows" / "weekly.yml")["jobs"]
    *admit, install, nnunet, test = commands(weekly["nnunet_main"]).splitlines()
    assert f"{install} && {test}\n" in (ROOT / "README.md").read_text(encoding="utf-8")
    assert nnunet.endswith("git+https://github.com/MIC-DKFZ/nnUNet")

    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "nnunet_cmc" / "nnunet_hook").mkdir(parents=True)
    shutil.copy(ROOT / "nnunet_cmc" / "nnunet_hook" / "version.py", tmp_path / "nnunet_cmc" / "nnunet_hook")
    subprocess.run(["bash", "-e", "-c", "\n".join(line for line in admit if line)], cwd=tmp_path, check=True)
    dependencies = tomllib.loads((tmp_path / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"]
    (required,) = (found for found in map(Requirement, dependencies) if found.name == "nnunetv2")
    low, high = runpy.run_path(str(tmp_path / "nnunet_cmc" / "nnunet_hook" / "version.py"))["SUPPORTED"]
    assert low == SUPPORTED[0]
    assert high > (9, 0)
    assert required.specifier == SpecifierSet(f">={'.'.join(map(str, low))},<{high[0]}")


def test_slow_tests_links_and_the_image_are_tried_every_week():
    weekly = read(GITHUB / "workflows" / "weekly.yml")["jobs"]
    (command,) = (line for line in commands(weekly["slow"]).splitlines() if line.startswith(".ci/"))
    assert (ROOT / command.split()[0]).is_file()
    assert "sphinx-build -b linkcheck -c docs . " in commands(weekly["links"])
    build, *runs = (shlex.split(line, comments=True) for line in commands(weekly["image"]).splitlines())
    assert shlex.join(build) == "docker build -t nnunet_cmc ."
    (default,) = (json.loads(arguments) for name, arguments in images() if name == "CMD")
    # the demo trains and predicts
    assert runs == [["docker", "run", "--rm", "nnunet_cmc", *words] for words in (default, ["nnunet_cmc", "demo"])]


def test_ci_looks_for_the_browsers_that_the_tests_use():
    (line,) = re.findall(r"^ *command -v (.*)$", CI, re.MULTILINE)
    fixtures = (ROOT / "tests" / "conftest.py").read_text(encoding="utf-8")
    (tests,) = re.findall(r"^BROWSERS = (\(.*?^\))", fixtures, re.MULTILINE | re.DOTALL)
    assert tuple(shlex.split(line)) == ast.literal_eval(tests)


@pytest.mark.parametrize("form", sorted((GITHUB / "ISSUE_TEMPLATE").iterdir()), ids=lambda file: file.stem)
def test_a_form_for_issues_asks_something(form):
    content = read(form)
    assert {"name", "description", "body"} <= content.keys()
    fields = [field for field in content["body"] if field["type"] != "markdown"]
    assert any(field.get("validations", {}).get("required") for field in fields)
    assert len({field["id"] for field in fields}) == len({field["attributes"]["label"] for field in fields})
    for page in re.findall(r"docs/\w+\.md", form.read_text(encoding="utf-8")):
        assert (ROOT / page).is_file()


def test_the_hooks_before_a_commit_are_the_linters_of_ci():
    (repository,) = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    entries = [hook["entry"] for hook in repository["hooks"]]
    assert len(entries) == 3
    assert all(f"\n    {entry}" in CI for entry in entries)


def test_the_citation_names_this_version_and_both_papers():
    citation = read(ROOT / "CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
    assert citation["version"] == nnunet_cmc.__version__
    assert citation["license"] == PYPROJECT["project"]["license"]
    assert [author["name"] for author in citation["authors"]] == [a["name"] for a in PYPROJECT["project"]["authors"]]
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split()).replace("{", "").replace("}", "")
    assert len(citation["references"]) == 2
    for reference in citation["references"]:
        assert {"type", "title", "authors", "year", "doi"} <= reference.keys()
        authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in reference["authors"])
        assert f"title = {reference['title']}, author = {authors}," in readme


def test_the_image_is_given_what_a_build_needs_and_installs_what_was_tested():
    (base,) = (arguments for name, arguments in images() if name == "FROM")
    assert base in {f"python:{python}-slim" for python in PYTHONS}
    sources = [word for name, arguments in images() if name == "COPY" for word in arguments.split()[:-1]]
    assert all((ROOT / source).exists() for source in sources)
    assert sorted(sources) == sorted([*FOLDERS, *BUILD_FILES])
    installs = [arguments for name, arguments in images() if name == "RUN" and "pip install" in arguments]
    assert installs[-1].endswith(" .")
    assert all("-c constraints.txt" in arguments for arguments in installs)


def test_what_the_image_runs_is_valid_shell():
    known = {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    assert {name for name, _ in images()} == known
    for name, arguments in images():
        if name == "RUN":
            subprocess.run(["bash", "-n", "-c", arguments], check=True)
            assert "apt-get install" not in arguments or "--yes" in arguments, "nobody is there to answer"


def test_the_image_says_where_nnunets_folders_are():
    environment = " ".join(arguments for name, arguments in images() if name == "ENV")
    for folder in ("raw", "preprocessed", "results"):
        assert f"nnUNet_{folder}=/data/{folder}" in environment.split()
