"""``nnunet_cmc convert``: bring scans into nnU-Net's raw format."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_cmc.commands import convert_archives, convert_folders

HELP = "bring scans into the raw format of nnU-Net"


class Source(NamedTuple):
    """A kind of source: its line of help, its usual dataset ID, its own arguments, and what converts it."""

    help: str
    dataset_id: int | None
    add_arguments: Callable[[argparse.ArgumentParser], None]
    convert: Callable[[argparse.Namespace, dict[str, Any]], Path]
    description: str | None = None


SOURCES = {
    "folders": Source(
        "any data, as folders of scans or a table",
        None,
        convert_folders.add_folders_arguments,
        convert_folders.convert,
        convert_folders.DESCRIPTION,
    ),
    "amos": Source(
        "AMOS 2022: abdominal CT and MRI, 15 organs",
        502,
        convert_archives.add_amos_arguments,
        convert_archives.convert_amos,
    ),
    "mscmrseg": Source(
        "MS-CMRSeg 2019: cardiac MRI in several sequences, 3 structures",
        501,
        convert_archives.add_mscmrseg_arguments,
        convert_archives.convert_mscmrseg,
    ),
    "tao": Source(
        "thyroid-associated orbitopathy: T1 and T1c MRI of the orbits, 8 structures",
        503,
        convert_archives.add_tao_arguments,
        convert_archives.convert_tao,
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    for name, source in SOURCES.items():
        own = sources.add_parser(
            name,
            help=source.help,
            description=source.description or source.help,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        default = source.dataset_id
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
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.data.format.scan_folder import by_case, visible_files

    description = DatasetDescription.read(folder / "dataset.json")
    ending, names = description.file_ending, description.modalities
    print(f"\n{folder}\n{'':16}{'cases':>8}", *(f"{name:>8}" for name in names))
    parts = {"imagesTr": "labelled", "imagesUn": "unlabelled", "imagesTs": "test"}
    for part, meaning in parts.items():
        cases = by_case(visible_files(folder / part, ending), ending)
        counts = (sum(channel in description.present_channels[case] for case in cases) for channel in range(len(names)))
        print(f"{meaning:16}{len(cases):8}", *(f"{count:8}" for count in counts))
