"""The table of bad input in docs/troubleshooting.md: each row has a test, and says what the code says."""

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
SOURCES = ("nnunet_cmc", "dataset_conversion", "planners", "trainers")
COMMANDS = {"convert", "split", "plan", "preprocess", "weights", "train", "predict", "evaluate", "doctor"}


class Row(NamedTuple):
    commands: list[str]
    wrong: str
    told: str
    tests: list[str]


def rows() -> list[Row]:
    text = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    table = re.search(r"## Bad input\n.*?\|---\|---\|---\|---\|\n(.*?)(\n\n|\Z)", text, re.DOTALL)
    assert table, "docs/troubleshooting.md has no table of bad input"
    found = []
    for line in table[1].splitlines():
        commands, wrong, told, tests = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
        names = commands.split(", ")
        each = [test.replace("*", name) for test in re.findall(r"`([^`]+)`", tests) for name in names]
        found.append(Row(names, wrong, told, sorted(set(each))))
    return found


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
    table = rows()
    assert len(table) >= 40
    assert {command for row in table for command in row.commands} == COMMANDS
    assert all(row.wrong and row.told and row.tests for row in table)
    assert len({(*row.commands, row.wrong) for row in table}) == len(table)


def test_the_tests_are_there(request):
    """Those that this very run has not collected, since it is of some files only, are collected in one of their own."""
    collected = {item.nodeid for item in request.session.items}
    collected |= {node.partition("[")[0] for node in collected}
    tests = sorted({f"tests/{test}" for row in rows() for test in row.tests} - collected)
    if not tests:
        return
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert "deselected" not in done.stdout, "a slow test does not run in CI"


def test_what_is_told_is_what_the_code_says():
    """In quotes is what a program prints; nnU-Net's own words, and what is no error, are not in quotes."""
    known = strings()
    for row in rows():
        for quoted in re.findall(r"\"([^\"]+)\"", row.told):
            for fragment in re.split(r"\s*…\s*", quoted):
                assert fragment in known, f"{', '.join(row.commands)}, {row.wrong}: {fragment!r} is nowhere in the code"
