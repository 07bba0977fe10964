"""The table of bad input, ``docs/bad_input.toml``, of which tests are made as well as a page."""

import re
import tomllib
from pathlib import Path
from typing import NamedTuple

FILE = Path(__file__).parents[1] / "docs" / "bad_input.toml"


class Fault(NamedTuple):
    """A row of the table: the file tells what its parts are."""

    commands: list[str]
    input: str
    tests: list[str]
    says: tuple[str, ...] = ()
    outcome: str = ""

    def tests_of(self, command: str) -> list[str]:
        """Return the tests that show it for a command."""
        return [test.replace("*", command) for test in self.tests]

    def is_said_in(self, text: str) -> bool:
        """Tell whether ``text`` has all that is said, with anything in place of …."""
        return all(re.search(".*".join(map(re.escape, one.split("…"))), text, re.DOTALL) for one in self.says)


FAULTS = [Fault(**fault) for fault in tomllib.loads(FILE.read_text(encoding="utf-8"))["fault"]]


def of_test(name: str) -> dict[tuple[str, ...], Fault]:
    """Return the faults that a parametrized test shows, by its parameters."""
    found = {}
    for fault in FAULTS:
        for test in (test for command in fault.commands for test in fault.tests_of(command)):
            if test.startswith(f"{name}["):
                found[tuple(test[len(name) + 1 : -1].split("-", 1))] = fault
    return found
