"""``nnunet_cmc``: the command line; each sub-command is a module of this folder.

The module of a sub-command has ``HELP`` (one line), ``add_arguments(parser)`` and ``run(args)``, which returns an
:class:`Outcome` or None. It imports slow packages (torch, nnU-Net, SimpleITK) in functions only, since ``nnunet_cmc
--help`` imports all of these modules.
"""

import argparse
import errno
import importlib
import sys
from collections.abc import Sequence
from contextlib import nullcontext

import nnunet_cmc
from nnunet_cmc.commands.outcome import PartialError, show, stdout_to_stderr
from nnunet_cmc.nnunet_hook.version import require_supported_nnunet

COMMANDS = (
    "demo", "convert", "inspect", "split", "weights", "train", "evaluate", "compare", "stress", "explain", "doctor",
)  # fmt: skip
REMEDIES = {
    errno.EACCES: "change its permissions, or name another place",
    errno.EEXIST: "name a folder, not a file",
    errno.ENOTDIR: "name a folder, not a file",
    errno.EROFS: "name another place",
    errno.ENOSPC: "free some space, or name another place",
    errno.EDQUOT: "free some space, or name another place",
    errno.EFBIG: "raise the limit of the size of files (ulimit -f), or name another place",
}
DESCRIPTION = "Semi-supervised multimodal segmentation as an extension of nnU-Net v2."
EPILOG = (
    "Planning, training and prediction are nnU-Net's commands: -pl CMCPlannerNNUNet, -tr CMCTrainer -p CMCNNUNetPlans."
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one sub-command and return the exit code: 0, or 1 after an error, which is one sentence on stderr."""
    arguments = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    try:
        args = _parser(arguments).parse_args(arguments)
        if arguments[0] != "doctor":  # which reports other problems, too
            require_supported_nnunet()
        _run(args)
    except (ValueError, RuntimeError, OSError, MemoryError) as error:
        print(f"nnunet_cmc: error: {_sentence(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("nnunet_cmc: interrupted", file=sys.stderr)
        return 130
    return 0


def _run(args: argparse.Namespace) -> None:
    as_json = getattr(args, "json", False)
    try:
        with stdout_to_stderr() if as_json else nullcontext():
            outcome = args.run(args)
    except PartialError as error:
        show(error.outcome, as_json)
        raise
    if outcome is not None:
        show(outcome, as_json)


def _parser(arguments: list[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="nnunet_cmc", description=DESCRIPTION, epilog=EPILOG)
    parser.add_argument("--version", action="version", version=f"nnunet_cmc {nnunet_cmc.__version__}")
    subparsers = parser.add_subparsers(title="commands", metavar="command", required=True)
    names = arguments[:1] if arguments[0] in COMMANDS else COMMANDS  # one module suffices to run its command
    for name in names:
        module = importlib.import_module(f"nnunet_cmc.commands.{name}")
        subparser = subparsers.add_parser(name, help=module.HELP, description=module.HELP)
        subparser.set_defaults(run=module.run)
        if arguments[0] == name:
            module.add_arguments(subparser)
    return parser


def command_parser(name: str) -> argparse.ArgumentParser:
    """Return the parser of one sub-command with all its arguments, for the docs."""
    (subparsers,) = (action for action in _parser([name])._actions if isinstance(action, argparse._SubParsersAction))
    return subparsers.choices[name]


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        remedy = REMEDIES.get(error.errno or 0)
        return f"{error.filename}: {error.strerror or error.args[0]}{f': {remedy}.' if remedy else ''}"
    if isinstance(error, MemoryError):
        return "Out of memory: use fewer processes, or smaller scans."
    return str(error) or type(error).__name__
