"""``nnunet_cmc convert amos``."""

import argparse
from pathlib import Path
from typing import Any

HELP = "AMOS 2022: abdominal CT and MRI, 15 organs"
DATASET_ID = 502


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", dest="input", required=True, metavar="FOLDER", help="the unpacked archive")
    parser.add_argument("--paper", action="store_true", help="draw the paper's 40 + 40 training and 20 + 20 test scans")
    parser.add_argument(
        "--organs", nargs="+", metavar="ORGAN", help='classes, such as spleen "right kidney"; default: all 15'
    )
    parser.add_argument("--unlabeled", action="store_true", help="use the scans of imagesTs as unlabelled ones")


def convert(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset502_AMOS import convert_amos

    return convert_amos(
        args.input, args.dataset_id, paper=args.paper, organs=args.organs, unlabeled=args.unlabeled, **options
    )
