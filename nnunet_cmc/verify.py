"""Does a file that somebody sent execute code when nnU-Net loads it? It unpickles checkpoints, and cannot ask."""

import json
import shutil
import zipfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from dynamic_network_architectures.architectures.unet import PlainConvUNet, ResidualEncoderUNet
from nnunetv2.postprocessing import remove_connected_components
from torch import nn

from nnunet_cmc.data.pickles import NUMPY, HarmlessUnpickler
from nnunet_cmc.data.plans_json import NETWORK, check_plans
from nnunet_cmc.networks.checkpoints import load_checkpoint

# What plans may have nnU-Net import, by the very names that planners write: through a module one reaches all that it
# has imported, such as torch.os.system.
NETWORKS = (NETWORK, *(f"{cls.__module__}.{cls.__name__}" for cls in (PlainConvUNet, ResidualEncoderUNet)))
LAYERS = (
    *(nn.Conv2d, nn.Conv3d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.Dropout2d, nn.Dropout3d, nn.LeakyReLU, nn.ReLU),
)
ARGUMENTS = (None, *(f"{module}.{layer.__name__}" for layer in LAYERS for module in ("torch.nn", layer.__module__)))
HARMLESS = {  # what nnU-Net's postprocessing.pkl names
    (remove_connected_components.__name__, "remove_all_but_largest_component_from_segmentation"),
    *NUMPY,
}
DATA = (".json", ".csv", ".txt", ".md", ".png", ".pdf", ".nii.gz")  # nothing of these is executed


class Verdict(NamedTuple):
    """``problem`` is None where all is well."""

    file: str
    problem: str | None


def verify(file: Path) -> Iterator[Verdict]:
    """Verdict on a checkpoint or, each for itself, on all of an exported model (``.zip``) or the folder of a model."""
    if file.is_dir():
        loaded = sorted(path for path in file.rglob("*") if _is_loaded(path.name))
        if not loaded:
            yield Verdict(str(file), "there is no model in this folder")
        for path in loaded:
            yield Verdict(str(path), _problem(_load, path))
    elif not file.is_file():
        yield Verdict(str(file), "there is no such file")
    elif file.suffix == ".zip":
        yield from _archive(file)
    else:
        yield Verdict(str(file), _problem(load_checkpoint, file))


def _archive(file: Path) -> Iterator[Verdict]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:  # NotImplementedError: a later zip version
        yield Verdict(str(file), f"it cannot be read as a zip file ({error}): export or copy it again")
        return
    with archive, TemporaryDirectory() as folder:
        for member in archive.infolist():
            path = PurePosixPath(member.filename)
            if path.is_absolute() or ".." in path.parts or "\\" in member.filename:
                yield Verdict(member.filename, "its path leads out of the folder that it is extracted to")
            elif not member.is_dir():
                yield Verdict(member.filename, _problem(_member, archive, member, Path(folder)))


def _problem(check, *arguments) -> str | None:
    try:
        check(*arguments)
    except Exception as error:  # anything may be in there
        return " ".join(str(error).split()) or type(error).__name__
    return None


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, folder: Path) -> None:
    name = PurePosixPath(member.filename).name
    if _is_loaded(name):
        with archive.open(member) as source, open(folder / name, "wb") as target:
            shutil.copyfileobj(source, target)
        _load(folder / name)
    elif not name.endswith(DATA):
        raise ValueError("it is of no kind that a model has")


def _is_loaded(name: str) -> bool:
    return name.endswith(".pth") or name in ("plans.json", "postprocessing.pkl")


def _load(file: Path) -> None:
    if file.name == "plans.json":
        _plans(json.loads(file.read_text(encoding="utf-8")))
    elif file.name == "postprocessing.pkl":
        with open(file, "rb") as content:
            HarmlessUnpickler(content, HARMLESS).load()
    else:
        load_checkpoint(file)


def _plans(plans: Any) -> None:
    check_plans(plans)
    for name, configuration in plans["configurations"].items():
        architecture = configuration.get("architecture")
        if architecture is None:
            continue
        try:
            network, kwargs = architecture["network_class_name"], architecture["arch_kwargs"]
            imports = [kwargs[key] for key in architecture["_kw_requires_import"]]
        except (KeyError, TypeError) as error:
            raise ValueError(f"its configuration {name} has an architecture that describes no network") from error
        if network not in NETWORKS or not all(argument in ARGUMENTS for argument in imports):
            raise ValueError(f"its configuration {name} would import {', '.join(map(str, [network, *imports]))}")
