"""The table of bad input: each row has a test, and says what the code says."""

import ast
import re
from pathlib import Path

from bad_input import FAULTS

ROOT = Path(__file__).parents[1]
SOURCES = ("nnunet_cmc", "dataset_conversion", "planners", "trainers")
COMMANDS = {"convert", "split", "plan", "preprocess", "weights", "train", "predict", "evaluate", "doctor"}
TESTS = {test for fault in FAULTS for command in fault.commands for test in fault.tests_of(command)}


def strings() -> str:
    """Every text in the code, on lines of its own, with … for what an f-string puts in."""
    found = []
    for file in (file for source in SOURCES for file in (ROOT / source).rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = (part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
                found.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return "\n".join(" ".join(text.split()) for text in found)


def functions(file: Path) -> list[str]:
    """Names of the functions of a module."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def test_every_command_has_rows_and_every_row_a_test():
    assert len(FAULTS) >= 40
    assert {command for fault in FAULTS for command in fault.commands} == COMMANDS
    assert all(fault.input and (fault.says or fault.outcome) and fault.tests for fault in FAULTS)
    assert len({(*fault.commands, fault.input) for fault in FAULTS}) == len(FAULTS)


def test_the_tests_are_there(request):
    """With their parameters, and not slow, in a run of all files; in others by name, for which nothing is imported."""
    there = {item.nodeid.removeprefix("tests/") for item in request.session.items}
    there |= {test.partition("[")[0] for test in there}
    files, tests = {test.partition("::")[0] for test in TESTS}, TESTS
    if not files <= {test.partition("::")[0] for test in there}:
        tests = {test.partition("[")[0] for test in TESTS}
        there = {f"{file}::{name}" for file in files for name in functions(ROOT / "tests" / file)}
    assert sorted(tests - there) == []


def test_what_is_told_is_what_the_code_says():
    """What a program says; nnU-Net's own words, and what is no error, are the ``outcome``."""
    known = strings()
    for fault in FAULTS:
        for fragment in (part for text in fault.says for part in re.split(r"\s*…\s*", text)):
            assert fragment in known, f"{', '.join(fault.commands)}, {fault.input}: {fragment!r} is not in the code"
