"""What all commands have in common: the result as JSON on stdout alone, or the files that were written."""

import json
import os
import subprocess
import sys
from math import nan
from pathlib import Path
from types import ModuleType

import pytest

from nnunet_cmc.commands import main as command_line
from nnunet_cmc.commands.main import COMMANDS, command_parser, main
from nnunet_cmc.commands.outcome import Outcome, PartialError, add_json, show

OUTCOME = Outcome({"dice": {"liver": nan, "spleen": 0.5}}, [Path("a", "b.json"), Path("c")])


@pytest.fixture
def command(monkeypatch):
    """Puts a command in place that prints in three ways, and returns an outcome or raises an error."""

    def put(error=None):
        def run(args):
            print("python")
            os.write(1, b"descriptor\n")
            subprocess.run([sys.executable, "-c", "print('process')"], check=True)
            if error:
                raise error
            return OUTCOME

        module = ModuleType("nnunet_cmc.commands.printing")
        module.__dict__.update(HELP="print", add_arguments=add_json, run=run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(command_line, "COMMANDS", ("printing",))

    return put


@pytest.mark.parametrize("error", [None, PartialError("One is broken.", OUTCOME)])
def test_stdout_has_the_json_alone(command, capfd, error):
    command(error)
    assert main(["printing", "--json"]) == bool(error)
    shown = capfd.readouterr()
    assert json.loads(shown.out) == {"dice": {"liver": None, "spleen": 0.5}, "written": ["a/b.json", "c"]}
    assert set(shown.err.split()) >= {"python", "descriptor", "process"}
    assert shown.err.endswith("error: One is broken.\n") is bool(error)
    print("afterwards")
    assert capfd.readouterr().out == "afterwards\n"


@pytest.mark.parametrize("error", [None, PartialError("One is broken.", OUTCOME)])
def test_without_it_what_was_written_comes_last(command, capfd, error):
    command(error)
    assert main(["printing"]) == bool(error)
    shown = capfd.readouterr()
    assert shown.out.endswith("\nWritten: a/b.json, c\n")
    assert {*shown.out.split()} > {"python", "descriptor", "process"}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (["/a/out/x.md", "/a/out/b/y.json"], "Written to /a/out: x.md, b/y.json\n"),
        (["/a/out/x.md"], "Written: /a/out/x.md\n"),
        (["out", "out/x.md"], "Written: out, out/x.md\n"),
        (["/a/x.md", "/b/x.md"], "Written: /a/x.md, /b/x.md\n"),
        (["/a/x.md", "b/x.md"], "Written: /a/x.md, b/x.md\n"),
    ],
)
def test_files_of_one_folder_are_named_in_it(capsys, files, said):
    show(Outcome({}, [*map(Path, files)]), as_json=False)
    assert capsys.readouterr().out == f"\n{said}"


def test_an_error_leaves_stdout_empty(command, capfd):
    command(ValueError("No case."))
    assert main(["printing", "--json"]) == 1
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("train", "convert")])
def test_every_command_with_a_result_has_the_option(name):
    assert any("--json" in action.option_strings for action in command_parser(name)._actions)
