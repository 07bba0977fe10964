"""``nnunet_cmc demo``: the whole pipeline on generated scans, with the commands a user would type."""

import argparse

from nnunet_cmc.commands.arguments import whole_number
from nnunet_cmc.commands.outcome import Outcome, add_json

HELP = "run the whole pipeline on generated scans: a CPU suffices, in minutes"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-o", "--output", default="nnunet_cmc_demo", metavar="FOLDER", help="a new folder; default: %(default)s, here"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of scans, folds and training; default: 0")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nnunet_cmc.commands.demo_steps import Demo

    return Demo(args.output, args.seed).run()
