"""Arguments that several commands share, and the datasets, models and numbers of processes that they name."""

import argparse
import math
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from nnunet_cmc.data.format.checkpoint_names import final_checkpoint

T = TypeVar("T", int, float)


def _number_from(least: int, kind: Callable[[str], T], name: str) -> Callable[[str], T]:
    """Return the type of an argument that is a number, of the ``kind`` called ``name``, of at least ``least``."""

    def read(text: str) -> T:
        with suppress(ValueError):
            if least <= (value := kind(text)) < math.inf:
                return value
        raise argparse.ArgumentTypeError(f"{text} is not a {name} from {least} on")

    return read


whole_number = _number_from(0, int, "whole number")
positive_number = _number_from(1, int, "whole number")
distance = _number_from(0, float, "number")


def add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-d", dest="dataset", required=True, metavar="ID", help="dataset ID or name")


def add_configuration(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-c", dest="configuration", default="3d_fullres", help="configuration (%(default)s)")


def add_device(parser: argparse.ArgumentParser, *other_names: str) -> None:
    parser.add_argument(
        "-device", *other_names, choices=("cuda", "cpu", "mps"), default="cuda", help="device (%(default)s)"
    )


def add_disable_tta(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring at prediction: faster")


def add_processes(parser: argparse.ArgumentParser, *other_names: str, what: str = "processes") -> None:
    """Add ``-np``, the number of processes that :func:`processes_of` returns; ``what`` says in the help whose."""
    parser.add_argument(
        "-np",
        *other_names,
        dest="processes",
        type=positive_number,
        help=f"{what}; default: nnUNet_def_n_proc or the cores",
    )


def processes_of(args: argparse.Namespace) -> int:
    """Return the number of processes: that of ``-np`` or, by default, nnU-Net's, but no more than there are cores."""
    from nnunetv2.configuration import default_num_processes

    return args.processes or min(default_num_processes, os.cpu_count() or 1)


def add_model(parser: argparse.ArgumentParser) -> None:
    """Add ``-d -f -p -c -device``, as nnU-Net's own commands have them; each command adds the trainer itself."""
    add_dataset(parser)
    parser.add_argument("-f", "--folds", nargs="+", required=True, metavar="FOLD", help="fold(s) of the model")
    parser.add_argument("-p", dest="plans", default="CMCNNUNetPlans", help="plans of the model (%(default)s)")
    add_configuration(parser)
    add_device(parser)


def model_folder(args: argparse.Namespace, trainer: str) -> Path:
    """Return a trained model's folder. ValueError if the dataset is unknown or a fold is not fully trained."""
    model = _folder("nnUNet_results", args.dataset) / f"{trainer}__{args.plans}__{args.configuration}"
    for fold in args.folds:
        checkpoint = final_checkpoint(model, fold)
        if not checkpoint.is_file():
            raise ValueError(f"There is no {checkpoint}: train the model to its end, or name another by -tr, -p, -f.")
    return model


def raw_dataset(id_or_name: str) -> Path:
    """Return the dataset's folder in nnUNet_raw by its ID or name. ValueError if there is not exactly one."""
    folder = _folder("nnUNet_raw", id_or_name)
    if not (folder / "dataset.json").is_file():
        raise ValueError(f"There is no {folder / 'dataset.json'}: convert the dataset first.")
    return folder


def preprocessed_dataset(id_or_name: str) -> Path:
    """Return the dataset's folder in nnUNet_preprocessed, which need not exist. ValueError: as :func:`raw_dataset`."""
    return _folder("nnUNet_preprocessed", id_or_name)


def _folder(variable: str, id_or_name: str) -> Path:
    from nnunetv2 import paths

    from nnunet_cmc.utils.variables import dataset_folder

    return dataset_folder(getattr(paths, variable), id_or_name)
