"""``nnunet_cmc convert tao``."""

import argparse
from pathlib import Path
from typing import Any

HELP = "thyroid-associated orbitopathy: T1 and T1c MRI of the orbits, 8 structures"
DATASET_ID = 503


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-i",
        dest="input",
        required=True,
        metavar="FOLDER",
        help="a folder for each patient, with T1.nii.gz, T1_label.nii.gz, T1c.nii.gz, T1c_label.nii.gz",
    )


def convert(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset503_TAO import convert_tao

    return convert_tao(args.input, args.dataset_id, **options)
