"""``nnunet_cmc convert amos``, ``mscmrseg`` and ``tao``: published datasets, as their archives are packed."""

import argparse
from pathlib import Path
from typing import Any


def add_amos_arguments(parser: argparse.ArgumentParser) -> None:
    _add_input(parser, "the unpacked archive")
    parser.add_argument("--paper", action="store_true", help="draw the paper's 40 + 40 training and 20 + 20 test scans")
    parser.add_argument(
        "--organs", nargs="+", metavar="ORGAN", help='classes, such as spleen "right kidney"; default: all 15'
    )
    parser.add_argument("--unlabeled", action="store_true", help="use the scans of imagesTs as unlabelled ones")


def convert_amos(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset502_AMOS import convert_amos

    return convert_amos(
        args.input, args.dataset_id, paper=args.paper, organs=args.organs, unlabeled=args.unlabeled, **options
    )


def add_mscmrseg_arguments(parser: argparse.ArgumentParser) -> None:
    _add_input(parser, "the unpacked archive")
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


def convert_mscmrseg(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset501_MSCMRSeg import convert_mscmrseg

    return convert_mscmrseg(
        args.input, args.dataset_id, layout=args.layout, sequences=args.sequences, paper=args.paper, **options
    )


def add_tao_arguments(parser: argparse.ArgumentParser) -> None:
    _add_input(parser, "a folder for each patient, with T1.nii.gz, T1_label.nii.gz, T1c.nii.gz, T1c_label.nii.gz")


def convert_tao(args: argparse.Namespace, options: dict[str, Any]) -> Path:
    from nnunet_cmc.dataset_conversion.Dataset503_TAO import convert_tao

    return convert_tao(args.input, args.dataset_id, **options)


def _add_input(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument("-i", dest="input", required=True, metavar="FOLDER", help=what)
