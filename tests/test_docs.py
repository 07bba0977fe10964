"""The docs: what is generated is up to date, links lead somewhere, commands and options exist."""

import ast
import importlib.util
import re
import shlex
from argparse import ArgumentParser
from importlib import import_module
from importlib.metadata import entry_points
from itertools import chain, dropwhile
from pathlib import Path

import pytest
from source_files import FOLDERS, imports

import nnunet_cmc
from nnunet_cmc.commands.main import COMMANDS, command_parser
from nnunet_cmc.nnunet_hook.classes import CLASSES
from nnunet_cmc.trainers.compared import COMPARED
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.registry import trainer_class

ROOT = Path(__file__).parents[1]
INDEX = ROOT / "docs" / "README.md"
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {".md", ".py", ".toml", ".yml", ".yaml", ".cff", ".js", ".css", ".html", ".j2"}


def module(name: str):
    """A Python file of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded


generate, conf = module("generate"), module("conf")


@pytest.mark.parametrize("page", generate.PAGES, ids=lambda page: page.name)
def test_what_is_generated_is_what_the_code_says(page):
    assert page.read_text(encoding="utf-8") == generate.PAGES[page](), (
        f"{page} is out of date: run python docs/generate.py"
    )


def test_the_reference_has_every_command_and_option():
    text = generate.commands()
    for name in COMMANDS:
        assert f"## `nnunet_cmc {name}" in text
        for action in command_parser(name)._actions:
            assert all(option in ("-h", "--help") or f"`{option}" in text for option in action.option_strings)


def test_messages_are_split_before_their_remedy():
    text = generate.messages()
    assert "| … is not empty | remove it, or name another folder with --output. |" in text
    assert "| There is no folder FOLDER | give the folder of the scans. |" in text
    remedy = "name the output folder of a finished nnunet_cmc stress."
    assert f"| FILE has no conditions as nnunet_cmc stress writes them | {remedy} |" in text, "a remedy with a name"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_pictures_are_there(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if not target.startswith(("https://", "http://", "#")):
            file, _, anchor = target.partition("#")
            linked = page.parent / file
            assert linked.exists(), f"{page.name} links to {target}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
                anchors = {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
                assert anchor in anchors, f"{page.name} links to {target}"


def test_every_page_is_in_the_index():
    index = INDEX.read_text(encoding="utf-8")
    missing = [page.name for page in PAGES[1:] if page.name != "README.md" and f"({page.name})" not in index]
    assert not missing, f"docs/README.md does not name {missing}"


def test_every_file_with_a_slow_test_is_in_the_table_of_nightly_tests():
    table = re.findall(
        r"^\| `(tests/\S+\.py)", (ROOT / "docs" / "nightly.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    mark = re.compile(r"^[^\"\n]*\bmark\.slow\b|\bmarks=pytest\.mark\.slow\b", re.MULTILINE)
    files = [file for file in (ROOT / "tests").rglob("*.py") if mark.search(file.read_text(encoding="utf-8"))]
    assert sorted(table) == sorted(file.relative_to(ROOT).as_posix() for file in files)


def test_the_table_of_systems_says_what_their_recipes_do():
    table = re.findall(r"^\| `(\w+Trainer)` \|(.*)\|$", (ROOT / "docs" / "comparison.md").read_text(), re.MULTILINE)
    rows = {name: [cell.strip() for cell in cells.split("|")] for name, cells in table if cells.count("|") == 5}
    assert set(rows) == {*COMPARED, "CMCTrainer"}
    for name, (_, unlabeled, unpaired, *_) in rows.items():
        recipe = RECIPES[name]
        assert unlabeled == ("yes" if recipe.uses_unlabeled() else "no"), name
        refused = any(term.loss.needs_registered for term in recipe.terms)
        assert unpaired.startswith("refused" if refused else "yes"), name


def test_the_difference_to_nnunet_in_the_readme_is_that_of_the_results():
    found = re.search(r"\(\+([\d.]+) points, 95 % interval ([\d.]+) to\s([\d.]+)[,)]", PAGES[0].read_text())
    assert found
    difference, low, high = found.groups()
    row = f"| registered | nnU-Net |.*| \\+{difference} \\[\\+{low}, \\+{high}\\] |".replace("|", r"\|")
    assert re.search(row, (ROOT / "docs" / "results.md").read_text())


def test_the_navigation_of_the_site_is_that_of_the_index():
    groups = conf.navigation(INDEX.read_text(encoding="utf-8"))
    assert list(groups) == ["", "Tutorials", "How-to guides", "Reference", "Explanation", "Results and development"]
    assert groups[""] == ["README"]
    pages = [page for group in groups.values() for page in group]
    assert len(pages) == len(set(pages))
    benchmarks = ROOT / "benchmarks"
    others = {benchmarks / "NOTES.md", benchmarks / "evidence" / "HISTORY.md"}
    assert {ROOT / f"{page}.md" for page in pages} == {*PAGES, *others} - {INDEX}


def test_the_page_of_the_programming_interface_has_every_name():
    text = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    assert sorted(re.findall(r"^\.\. auto\w+:: nnunet_cmc\.(\w+)$", text, re.MULTILINE)) == sorted(nnunet_cmc.__all__)


def test_ci_builds_the_site_as_contributors_are_told_to():
    (command,) = re.findall(r"^sphinx-build .*$", (ROOT / "docs" / "contributing.md").read_text(), re.MULTILINE)
    assert " -W -n " in command
    assert f"\n{command}\n" in (ROOT / ".ci" / "run").read_text()


def texts():
    """What people write in this repository: code, pages, settings, scripts; not what is built beside them."""
    folders = (*FOLDERS, "tests", "benchmarks", "docs", "examples", ".github")
    found = [*ROOT.iterdir(), *(file for name in folders for file in (ROOT / name).rglob("*"))]
    yield from (file for file in found if file.suffix in TEXTS and "_build" not in file.parts)
    yield from [ROOT / "Dockerfile", ROOT / "MANIFEST.in", ROOT / "constraints.txt", *(ROOT / ".ci").iterdir()]


def test_lines_fit():
    """Rows of tables and the addresses of links may be longer."""
    for file in texts():
        for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
            shown = re.sub(r"\]\([^)]*\)", "]", line)
            is_free = file.suffix == ".md" and line.startswith("|")
            assert is_free or len(shown) <= 120, f"{file}:{number} has {len(shown)} characters"


def commands_of(page, program):
    """Commands in the shell blocks of a page, and those in its text that name a dataset, a list of words each."""
    text = page.read_text(encoding="utf-8")
    lines = re.findall(r"`(nnUNetv2_\w+ (?:-d )?\d[^`]*)`", text)
    for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        lines += block.replace("\\\n", " ").splitlines()
    for command in (command for line in lines for command in re.split(r"&&|;", line)):
        words = [*dropwhile(re.compile(r"\w+=").match, shlex.split(command, comments=True))]
        if words and re.fullmatch(program, words[0]) and "..." not in words and len(words) > 1:
            yield words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_in_the_docs_are_understood(page):
    for _, name, *arguments in commands_of(page, "nnunet_cmc"):
        assert name in COMMANDS, f"{page.name}: nnunet_cmc {name}"
        command_parser(name).parse_args(arguments)  # ends this test with what argparse says


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_of_nnunet_in_the_docs_are_understood(page, monkeypatch):
    """By its own parsers, after which its commands end; the classes that they name are there."""
    read, ended = ArgumentParser.parse_known_args, type("Ended", (BaseException,), {})

    def only_read(parser, *given):  # parse_args calls it as well
        arguments, unknown = read(parser, *given)
        assert not unknown, f"{page.name}: {unknown}"
        raise ended(arguments)

    monkeypatch.setattr(ArgumentParser, "parse_known_args", only_read)
    for words in commands_of(page, r"nnUNetv2_\w+"):
        (command,) = entry_points(group="console_scripts", name=words[0])
        monkeypatch.setattr("sys.argv", words)
        with pytest.raises(ended) as error:
            command.load()()
        given = vars(error.value.args[0])
        for name in (str(given.get(option)) for option in ("pl", "fpe", "tr")):
            assert not name.startswith("CMC") or name in CLASSES or trainer_class(name), shlex.join(words)


def test_the_pages_have_commands_to_understand():
    assert sum(len(list(commands_of(page, "nnunet_cmc"))) for page in PAGES) > 15
    assert sum(len(list(commands_of(page, r"nnUNetv2_\w+"))) for page in PAGES) > 15


def test_python_in_the_docs_imports_what_is_there():
    blocks = [ast.parse(code) for page in PAGES for code in re.findall(r"```python\n(.*?)```", page.read_text(), re.S)]
    assert len(blocks) >= 3
    for _, module_name, name in chain.from_iterable(map(imports, blocks)):
        assert not name or hasattr(import_module(module_name), name), f"{module_name} has no {name}"


def test_contributors_are_told_how_every_picture_was_made():
    text = (ROOT / "docs" / "contributing.md").read_text(encoding="utf-8")
    pictures = [file.name for ending in ("png", "svg") for file in (ROOT / "docs").glob(f"*.{ending}")]
    assert sorted(re.findall(r"^\| `([\w.]+)` \|", text, re.MULTILINE)) == sorted(pictures)


def test_pictures_can_be_seen_and_their_text_is_within_them(browser, tmp_path):
    """In Chromium; the drawings that hold text are part of the page, so that each piece of text has a place."""
    pictures = [*sorted((ROOT / "docs").glob("*.png")), *sorted((ROOT / "docs").glob("*.svg"))]
    drawings = [file.read_text(encoding="utf-8").partition("<svg")[2] for file in pictures if file.suffix == ".svg"]
    shown = "".join(f'<img src="{file.as_uri()}">' for file in pictures) + "".join(f"<svg{svg}" for svg in drawings)
    (tmp_path / "page.html").write_text(f"<!DOCTYPE html><body>{shown}</body>", encoding="utf-8")
    facts = browser(
        tmp_path / "page.html",
        """
        const within = (text, box) => text.left >= box.left && text.right <= box.right && text.top >= box.top
            && text.bottom <= box.bottom;
        const place = element => element.getBoundingClientRect();
        const texts = [...document.querySelectorAll("svg text")];
        const outside = texts.filter(text => !within(place(text), place(text.ownerSVGElement)));
        return {
            widths: [...document.images].map(image => image.naturalWidth),
            texts: texts.length,
            outside: outside.map(text => text.textContent),
        };
        """,
        width=2000,
    )
    assert len(facts["widths"]) == len(pictures)
    assert min(facts["widths"]) > 100
    assert facts["texts"] > 20
    assert facts["outside"] == []
