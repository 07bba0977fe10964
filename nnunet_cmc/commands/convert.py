"""``nnunet_cmc convert``: bring scans into nnU-Net's raw format."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_cmc.commands import convert_folders
from nnunet_cmc.commands.arguments import add_processes, processes_of

HELP = "bring scans into the raw format of nnU-Net"


class Archive(NamedTuple):
    """A published dataset as it is packed: ``options`` are given to ``convert_NAME`` of ``module`` as they stand."""

    help: str
    dataset_id: int
    module: str
    options: dict[str, dict[str, Any]]
    input: str = "the unpacked archive"


FLAG = {"action": "store_true"}
ARCHIVES = {
    "amos": Archive(
        "AMOS 2022: abdominal CT and MRI, 15 organs",
        502,
        "Dataset502_AMOS",
        {
            "--paper": {**FLAG, "help": "draw the paper's 40 + 40 training and 20 + 20 test scans"},
            "--organs": {
                **{"nargs": "+", "metavar": "ORGAN"},
                "help": 'classes, such as spleen "right kidney"; default: all 15',
            },
            "--unlabeled": {**FLAG, "help": "use the scans of imagesTs as unlabelled ones"},
        },
    ),
    "mscmrseg": Archive(
        "MS-CMRSeg 2019: cardiac MRI in several sequences, 3 structures",
        501,
        "Dataset501_MSCMRSeg",
        {
            "--layout": {
                **{"choices": ("separate", "registered"), "default": "separate"},
                "help": "a case for each scan, or all sequences of a patient resampled onto one grid (%(default)s)",
            },
            "--sequences": {
                **{"nargs": "+", "choices": ("LGE", "bSSFP", "T2"), "default": ["LGE", "bSSFP"]},
                "help": "sequences, in channel order; default: LGE bSSFP",
            },
            "--paper": {**FLAG, "help": "draw the paper's 40 training and 5 test patients"},
        },
    ),
    "tao": Archive(
        "thyroid-associated orbitopathy: T1 and T1c MRI of the orbits, 8 structures",
        503,
        "Dataset503_TAO",
        {},
        "a folder for each patient, with T1.nii.gz, T1_label.nii.gz, T1c.nii.gz, T1c_label.nii.gz",
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")

    def add(name: str, text: str, description: str, **of_id: Any) -> argparse.ArgumentParser:
        raw = argparse.RawDescriptionHelpFormatter
        own = sources.add_parser(name, help=text, description=description, formatter_class=raw)
        own.add_argument("-d", dest="dataset_id", type=int, metavar="ID", **of_id)
        return own

    parsers = [
        add("folders", convert_folders.HELP, convert_folders.DESCRIPTION, required=True, help="dataset ID, 1 to 999")
    ]
    convert_folders.add_folders_arguments(parsers[0])
    for name, archive in ARCHIVES.items():
        text = "dataset ID, 1 to 999; default: %(default)s"
        parsers.append(add(name, archive.help, archive.help, default=archive.dataset_id, help=text))
        parsers[-1].add_argument("-i", dest="input", required=True, metavar="FOLDER", help=archive.input)
        for option, details in archive.options.items():
            parsers[-1].add_argument(option, **details)
    for own in parsers:
        own.add_argument("--dry-run", action="store_true", help="check, and say what would become of every file")
        own.add_argument("--allow-empty-labels", action="store_true", help="accept labels that show no class at all")
        text = "hard links to scans that need no change, not copies: they take no space, but are the same files"
        own.add_argument("--link", action="store_true", help=text)
        own.add_argument("--seed", type=int, default=0, help="of everything that is drawn; default: %(default)s")
        add_processes(own)


def run(args: argparse.Namespace) -> None:
    options = {name: getattr(args, name) for name in ("dry_run", "allow_empty_labels", "link", "seed")}
    options["processes"] = processes_of(args)
    if args.source == "folders":
        folder = convert_folders.convert(args, options)
    else:
        archive = ARCHIVES[args.source]
        own = {name: getattr(args, name) for name in (option.lstrip("-") for option in archive.options)}
        module = import_module(f"nnunet_cmc.dataset_conversion.{archive.module}")
        folder = getattr(module, f"convert_{args.source}")(args.input, args.dataset_id, **own, **options)
    if not args.dry_run:
        _print_summary(folder)


def _print_summary(folder: Path) -> None:
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.data.format.scan_folder import by_case, visible_files

    description = DatasetDescription.read(folder / "dataset.json")
    ending, names = description.file_ending, description.modalities
    print(f"\n{folder}\n{'':16}{'cases':>8}", *(f"{name:>8}" for name in names))
    for part, meaning in {"imagesTr": "labelled", "imagesUn": "unlabelled", "imagesTs": "test"}.items():
        cases = by_case(visible_files(folder / part, ending), ending)
        counts = (sum(channel in description.present_channels[case] for case in cases) for channel in range(len(names)))
        print(f"{meaning:16}{len(cases):8}", *(f"{count:8}" for count in counts))
