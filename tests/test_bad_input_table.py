"""The table of bad input: each row has a test, and says what the code says."""

import ast
import re
import subprocess
import sys
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


def test_every_command_has_rows_and_every_row_a_test():
    assert len(FAULTS) >= 40
    assert {command for fault in FAULTS for command in fault.commands} == COMMANDS
    assert all(fault.input and (fault.says or fault.outcome) and fault.tests for fault in FAULTS)
    assert len({(*fault.commands, fault.input) for fault in FAULTS}) == len(FAULTS)


def test_the_tests_are_there(request):
    """Those that this very run has not collected, since it is of some files only, are collected in one of their own."""
    collected = {item.nodeid for item in request.session.items}
    collected |= {node.partition("[")[0] for node in collected}
    tests = sorted({f"tests/{test}" for test in TESTS} - collected)
    if not tests:
        return
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "deselected" not in done.stdout, "a slow test does not run in CI"


def test_what_is_told_is_what_the_code_says():
    """What a program says; nnU-Net's own words, and what is no error, are the ``outcome``."""
    known = strings()
    for fault in FAULTS:
        for fragment in (part for text in fault.says for part in re.split(r"\s*…\s*", text)):
            assert fragment in known, f"{', '.join(fault.commands)}, {fault.input}: {fragment!r} is not in the code"
