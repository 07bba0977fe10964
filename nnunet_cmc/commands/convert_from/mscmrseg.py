"""``nnunet_cmc convert mscmrseg``."""

import argparse
from pathlib import Path
from typing import Any

HELP = "MS-CMRSeg 2019: cardiac MRI in several sequences, 3 structures"
DATASET_ID = 501


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-i", dest="input", required=True, metavar="FOLDER", help="the unpacked archive")
    parser.add_argument(
        "--layout",
        choices=("separate", "registered"),
        default="separate",
        help="a case for each scan, or all sequences of a patient resampled onto one grid (%(default)s)",
    )
    parser.add_argument(
        "--sequences",
        nargs="+",
        choices=("LGE", "bSSFP", "T2"),
        default=["LGE", "bSSFP"],
        help="sequences, in channel order; default: LGE bSSFP",
    )
    parser.add_argument("--paper", action="store_true", help="draw the paper's 40 training and 5 test patients")


def convert(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset501_MSCMRSeg import convert_mscmrseg

    return convert_mscmrseg(
        args.input, args.dataset_id, layout=args.layout, sequences=args.sequences, paper=args.paper, **options
    )
