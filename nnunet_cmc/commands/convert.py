"""``nnunet_cmc convert``: bring scans into nnU-Net's raw format; each kind of source is a file of ``convert_from``."""

import argparse
from pathlib import Path

from nnunet_cmc.commands.convert_from import amos, folders, mscmrseg, tao

HELP = "bring scans into the raw format of nnU-Net"
SOURCES = {"folders": folders, "amos": amos, "mscmrseg": mscmrseg, "tao": tao}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, source in SOURCES.items():
        own = sources.add_parser(
            name,
            help=source.HELP,
            description=getattr(source, "DESCRIPTION", source.HELP),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        default = source.DATASET_ID
        own.add_argument(
            "-d",
            dest="dataset_id",
            type=int,
            default=default,
            required=default is None,
            metavar="ID",
            help="dataset ID, 1 to 999" + ("" if default is None else "; default: %(default)s"),
        )
        source.add_arguments(own)
        own.add_argument("--dry-run", action="store_true", help="check, and say what would become of every file")
        own.add_argument("--allow-empty-labels", action="store_true", help="accept labels that show no class at all")
        own.add_argument(
            "--link",
            action="store_true",
            help="hard links to scans that need no change, not copies: they take no space, but are the same files",
        )
        own.add_argument("--seed", type=int, default=0, help="of everything that is drawn; default: %(default)s")
        own.add_argument("-np", dest="processes", type=int, help="processes; default: nnUNet_def_n_proc or the cores")


def run(args: argparse.Namespace) -> None:
    import os

    from nnunetv2.configuration import default_num_processes

    options = {
        "dry_run": args.dry_run,
        "allow_empty_labels": args.allow_empty_labels,
        "link": args.link,
        "seed": args.seed,
        "processes": args.processes or min(default_num_processes, os.cpu_count() or 1),
    }
    folder = SOURCES[args.source].convert(args, options)
    if not args.dry_run:
        _print_summary(folder)


def _print_summary(folder: Path) -> None:
    from nnunet_cmc.data.dataset_json import DatasetDescription
    from nnunet_cmc.data.scan_folder import by_case, visible_files

    description = DatasetDescription.read(folder / "dataset.json")
    ending, names = description.file_ending, description.modalities
    print(f"\n{folder}\n{'':16}{'cases':>8}", *(f"{name:>8}" for name in names))
    parts = {"imagesTr": "labelled", "imagesUn": "unlabelled", "imagesTs": "test"}
    for part, meaning in parts.items():
        cases = by_case(visible_files(folder / part, ending), ending)
        counts = (sum(channel in description.present_channels[case] for case in cases) for channel in range(len(names)))
        print(f"{meaning:16}{len(cases):8}", *(f"{count:8}" for count in counts))
