import importlib
import json
import os
import pkgutil
import subprocess
import sys
from types import ModuleType

import pytest

import nnunet_cmc
import nnunet_cmc.commands
from nnunet_cmc.commands import main as command_line
from nnunet_cmc.commands.main import COMMANDS, command_parser, main


@pytest.fixture
def failing_command(monkeypatch):
    """Gives a function that puts a command in place which raises ``error``, and runs it."""

    def run_with(error: BaseException) -> int:
        def run(args):
            raise error

        module = ModuleType("nnunet_cmc.commands.failing")
        module.__dict__.update(HELP="fails", add_arguments=lambda parser: None, run=run)
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setattr(command_line, "COMMANDS", ("failing",))
        return main(["failing"])

    return run_with


def test_every_command_of_the_folder_is_in_the_table():
    names = [module.name for module in pkgutil.iter_modules(nnunet_cmc.commands.__path__)]
    modules = {name: importlib.import_module(f"nnunet_cmc.commands.{name}") for name in names}
    assert {name for name, module in modules.items() if hasattr(module, "add_arguments")} == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main([name, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert shown.startswith(f"usage: nnunet_cmc {name} ")
    module = importlib.import_module(f"nnunet_cmc.commands.{name}")
    assert " ".join(getattr(module, "USAGE", module.HELP).split()) in shown


@pytest.mark.parametrize("seed", ["-1", "0.5", "\u00b2"])
def test_a_seed_is_a_whole_number(seed, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["split", "-d", "1", "--seed", seed])
    assert f"{seed} is not a whole number from 0 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("command", "option"),
    [*((name, "-np") for name in ("evaluate", "compare", "inspect", "stress")), ("compare", "--jobs")],
)
@pytest.mark.parametrize("number", ["0", "-1", "two", "1.5"])
def test_processes_and_jobs_are_one_or_more(command, option, number, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main([command, option, number])
    assert f"{number} is not a whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize("number", ["-1", "nan", "inf", "2mm"])
def test_a_tolerance_is_a_number_from_0_on(number, capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["evaluate", f"--tolerance={number}"])
    assert f"{number} is not a number from 0 on" in capsys.readouterr().err


def test_options_of_trained_models_are_spelled_alike():
    spellings = {
        name: {spelling for action in command_parser(name)._actions for spelling in action.option_strings}
        for name in ("compare", "demo", "evaluate", "explain", "stress")
    }
    assert all({"-o", "--output"} <= found for found in spellings.values())
    for name, trainer in {"compare": "--trainers", "explain": "--trainers", "stress": "--trainer"}.items():
        assert {"-tr", trainer, "-f", "--folds"} <= spellings[name]


@pytest.mark.parametrize("arguments", [["--help"], []])
def test_help_lists_every_command(arguments, capsys):
    with pytest.raises(SystemExit, match=r"^0$"):
        main(arguments)
    shown = capsys.readouterr().out
    assert all(f"\n    {name} " in shown for name in COMMANDS)


def test_help_is_quick_and_imports_nothing_slow():
    code = (
        "import json, resource, sys\n"
        "from nnunet_cmc.commands.main import main\n"
        "try: main(['--help'])\n"
        "finally:\n"
        "    usage = resource.getrusage(resource.RUSAGE_SELF)\n"
        "    print(json.dumps([usage.ru_utime + usage.ru_stime, *sys.modules]), file=sys.stderr)"
    )
    runs = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True) for _ in range(3)]
    seconds, modules = zip(*((found[0], found[1:]) for found in (json.loads(run.stderr) for run in runs)), strict=True)
    assert not {"torch", "numpy", "SimpleITK", "nnunetv2", "scipy", "matplotlib"} & set(modules[0])
    assert min(seconds) < 0.3  # seconds of the processor, which other work on this machine does not stretch


def test_the_installed_script_runs():
    script = os.path.join(os.path.dirname(sys.executable), "nnunet_cmc")
    shown = subprocess.run([script, "--version"], capture_output=True, text=True, check=True).stdout
    assert shown == f"nnunet_cmc {nnunet_cmc.__version__}\n"


def test_an_unknown_command_is_answered_with_the_known_ones(capsys):
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["fit"])
    message = capsys.readouterr().err
    assert "'fit'" in message
    assert all(name in message for name in COMMANDS)


def no_number(text: str, file: str) -> OSError:
    """An error of a library, without an errno, to which the file was added."""
    error = OSError(text)
    error.filename = file
    return error


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (ValueError("Case a has no label: remove it."), "Case a has no label: remove it."),
        (RuntimeError("No case is left."), "No case is left."),
        (RuntimeError(), "RuntimeError"),
        (FileNotFoundError("The folder x is empty."), "The folder x is empty."),
        (
            PermissionError(13, "Permission denied", "/x/dataset.json"),
            "/x/dataset.json: Permission denied: change its permissions, or name another place.",
        ),
        (no_number("broken data stream", "/x/0.jpg"), "/x/0.jpg: broken data stream"),
        (MemoryError("Unable to"), "Out of memory: use fewer processes, or smaller scans."),
        (NotADirectoryError(20, "Not a directory", "/x/y"), "/x/y: Not a directory: name a folder, not a file."),
        (FileExistsError(17, "File exists", "/x/y"), "/x/y: File exists: name a folder, not a file."),
        (IsADirectoryError(21, "Is a directory", "/x/y"), "/x/y: Is a directory"),
    ],
)
def test_an_error_of_the_user_is_one_sentence(failing_command, error, sentence, capsys):
    assert failing_command(error) == 1
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == f"nnunet_cmc: error: {sentence}\n"


def test_an_error_of_ours_keeps_its_traceback(failing_command):
    with pytest.raises(KeyError):
        failing_command(KeyError("spacing"))


def test_an_interrupt_ends_without_a_traceback(failing_command, capsys):
    assert failing_command(KeyboardInterrupt()) == 130
    assert capsys.readouterr().err == "nnunet_cmc: interrupted\n"
