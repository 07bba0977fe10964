"""``nnunet_cmc doctor``: check the installation, and name the remedy of each problem."""

import argparse
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_cmc.commands.outcome import Outcome, PartialError, add_json
from nnunet_cmc.utils.formatting import counted
from nnunet_cmc.utils.parallel import process_pool

HELP = "check the installation: versions, whether nnU-Net finds our classes, folders, GPU"

REINSTALL = "install nnunet_cmc again in this environment"
PATHS = {"nnUNet_raw": "raw datasets", "nnUNet_preprocessed": "preprocessed datasets", "nnUNet_results": "models"}


class Check(NamedTuple):
    status: str  # "OK", "warning" or "BROKEN"
    subject: str
    finding: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--verify",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="check instead that these checkpoints, exported models (.zip) or folders of models execute no code when "
        "nnU-Net loads them",
    )
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    """Print one line per check. RuntimeError if this package or something that it needs is broken."""
    counts = {"OK": 0, "warning": 0, "BROKEN": 0}
    done = []
    for check in verdicts(args.verify) if args.verify else checks():
        print(f"{check.status:<8} {check.subject:<24} {check.finding}", flush=True)
        counts[check.status] += 1
        done.append(check._asdict())
    outcome = Outcome({"counts": counts, "checks": done})
    if counts["BROKEN"]:
        raise PartialError(
            f"{counts['BROKEN']} of {sum(counts.values())} checks are BROKEN: the remedies are listed above.", outcome
        )
    works = f"nnunet_cmc works here ({counted(counts['OK'], 'check')} OK, {counted(counts['warning'], 'warning')})."
    print("\n" + ("Nothing in there executes code when nnU-Net loads it." if args.verify else works))
    return outcome


def checks() -> Iterator[Check]:
    yield from chain(versions(), classes(), folders())
    yield gpu()
    yield torchvision()


def verdicts(files: list[Path]) -> Iterator[Check]:
    from nnunet_cmc.inference.verify import verify

    for name, problem in chain.from_iterable(map(verify, files)):
        yield Check("BROKEN" if problem else "OK", name, problem or "nothing but data")


def versions() -> Iterator[Check]:
    """Check Python, this package, and whether each required package is in the range of its metadata."""
    from packaging.requirements import Requirement

    yield Check("OK", "python", f"{platform.python_version()} ({sys.executable})")
    own = _version("nnunet_cmc")
    yield Check("OK" if own else "BROKEN", "nnunet_cmc", own or f"not installed, only on the path: {REINSTALL}")
    for text in (own and importlib.metadata.requires("nnunet_cmc")) or []:
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue  # of the tests only
        remedy = f'pip install "{requirement.name}{requirement.specifier}"'
        if (version := _version(requirement.name)) is None:
            yield Check("BROKEN", requirement.name, f"not installed: {remedy}")
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        finding = version if fits else f"{version} is not in {requirement.specifier}: {remedy}"
        yield Check("OK" if fits else "BROKEN", requirement.name, finding)


def classes() -> Iterator[Check]:
    """Check whether nnU-Net's own functions find each of our classes, in this process and in a spawned one."""
    from nnunet_cmc.nnunet_hook.classes import CLASSES, TRAINERS
    from nnunet_cmc.nnunet_hook.hook import SWITCH

    with process_pool(1) as pool:
        spawned = pool.submit(problems)
        here = problems()
        try:
            there = spawned.result()
        except Exception as error:
            there = dict.fromkeys([*CLASSES, *TRAINERS], _in_one_line(error))
    if None in here or None in there:  # then no class at all is found, and for one reason
        off = os.environ.get(SWITCH) == "0"
        remedy = f"unset {SWITCH}, which is 0" if off else REINSTALL
        yield Check("BROKEN", "start-up hook", f"not in place, so nnU-Net finds none of our classes: {remedy}")
        return
    elsewhere = {name: f"found here, but not in a spawned process: {problem}" for name, problem in there.items()}
    for name in [*CLASSES, *TRAINERS]:
        problem = here.get(name) or elsewhere.get(name)
        finding = f"{problem}: {REINSTALL}" if problem else "found here and in a spawned process"
        yield Check("BROKEN" if problem else "OK", name, finding)


def problems() -> dict[str | None, str]:
    """Return why nnU-Net does not find our classes: name -> problem, empty if it does.

    Without the hook there is one entry, of the key None: nnU-Net's own search would import all of its modules.
    """
    from nnunet_cmc.nnunet_hook.classes import CLASSES, TRAINERS
    from nnunet_cmc.nnunet_hook.wrapping import MARK

    modules = {**CLASSES, **TRAINERS}
    try:
        import nnunetv2
        from nnunetv2.utilities import find_class_by_name
        from nnunetv2.utilities.find_objects import recursive_find_trainer_class_by_name
    except Exception as error:
        return dict.fromkeys([*modules], f"nnU-Net does not load ({_in_one_line(error)})")
    find_class: Any = find_class_by_name.recursive_find_python_class
    if not hasattr(find_class, MARK):
        return {None: "no hook"}

    found: dict[str | None, str] = {}
    for name, module in modules.items():
        folder = "preprocessing" if name.endswith("Preprocessor") else "experiment_planning"
        try:
            if name in TRAINERS:
                cls = recursive_find_trainer_class_by_name(name)
            else:
                cls = find_class(os.path.join(nnunetv2.__path__[0], folder), name, f"nnunetv2.{folder}")
            if cls.__module__ != module:
                found[name] = f"nnU-Net finds the one of {cls.__module__}"
        except Exception as error:
            found[name] = _in_one_line(error)
    return found


def folders() -> Iterator[Check]:
    from nnunet_cmc.utils.variables import cannot_be_expanded, expanded

    for variable, content in PATHS.items():
        folder = os.environ.get(variable, "")
        if not folder:
            problem = f"not set: export {variable}=FOLDER, the folder for {content}"
        elif (whole := expanded(folder)) != folder:
            remedy = f"export {variable}={whole}; mkdir -p {whole}"
            problem = f"{folder} is used literally, without expanding ~ or variables: {remedy}"
        elif cannot_be_expanded(folder):
            problem = f"{folder} names a home folder or a variable that does not exist: export {variable} with the path"
        elif not os.path.isdir(folder):
            problem = f"{folder} does not exist: mkdir -p {folder}, or set {variable} anew"
        elif not os.access(folder, os.W_OK):
            problem = f"{folder} is not writable: choose another folder, or get permission"
        else:
            problem = ""
        yield Check("warning" if problem else "OK", variable, problem or folder)


def gpu() -> Check:
    try:
        import torch
    except Exception as error:
        return Check("BROKEN", "GPU", f"torch does not load ({_in_one_line(error)}): install torch again")
    if torch.cuda.is_available():
        devices = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
        found = ", ".join(f"{device.name} ({device.total_memory / 2**30:.0f} GiB)" for device in devices)
        return Check("OK", "GPU", found)
    if torch.version.cuda is None and torch.version.hip is None:
        reason = f"torch {torch.__version__} is built for the CPU; for a GPU install another build of torch"
    else:
        reason = f"torch {torch.__version__} sees none; does nvidia-smi, and is CUDA_VISIBLE_DEVICES unset?"
    return Check("warning", "GPU", f"none: give nnU-Net -device cpu, with CMCPlannerNNUNetSmall ({reason})")


def torchvision() -> Check:
    """Check torchvision in another process, since importing a build that does not match torch has lasting effects."""
    process = subprocess.run([sys.executable, "-c", "import torchvision"], capture_output=True, text=True)
    if process.returncode == 0:
        return Check("OK", "torchvision", _version("torchvision") or "of unknown version")
    reason = (process.stderr.strip().splitlines() or [f"exit code {process.returncode}"])[-1]
    advice = (
        "our classes do not need it, but nnU-Net's own trainer variants are not found without; install the build that "
        "matches torch"
    )
    return Check("warning", "torchvision", f"does not load ({reason}): {advice}")


def _version(package: str) -> str | None:
    """Return the installed version of a package; None if nothing says that it is installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _in_one_line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())
