"""``nnunet_cmc convert``: bring scans into nnU-Net's raw format."""

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from nnunet_cmc.commands import convert_folders
from nnunet_cmc.commands.arguments import add_processes, processes_of, whole_number
from nnunet_cmc.commands.outcome import Outcome, add_json

HELP = "bring scans into the raw format of nnU-Net"


class Published(NamedTuple):
    """A published dataset: its line of help, ID, module of ``dataset_conversion``, what ``-i`` takes, own options."""

    help: str
    dataset_id: int
    module: str
    folder: str
    options: dict[str, dict[str, Any]]


PUBLISHED = {
    "amos": Published(
        "convert AMOS 2022: abdominal CT and MRI, 15 organs",
        502,
        "Dataset502_AMOS",
        "the unpacked archive",
        {
            "--paper": {"action": "store_true", "help": "draw the paper's 40 + 40 training and 20 + 20 test scans"},
            "--organs": {
                "nargs": "+",
                "metavar": "ORGAN",
                "help": 'classes, such as spleen "right kidney"; default: all 15',
            },
            "--unlabeled": {"action": "store_true", "help": "use the scans of imagesTs as unlabelled ones"},
        },
    ),
    "mscmrseg": Published(
        "convert MS-CMRSeg 2019: cardiac MRI in several sequences, 3 structures",
        501,
        "Dataset501_MSCMRSeg",
        "the unpacked archive",
        {
            "--layout": {
                "choices": ("separate", "registered"),
                "default": "separate",
                "help": "a case for each scan, or all sequences of a patient resampled onto one grid (%(default)s)",
            },
            "--sequences": {
                "nargs": "+",
                "choices": ("LGE", "bSSFP", "T2"),
                "default": ["LGE", "bSSFP"],
                "help": "sequences, in channel order; default: LGE bSSFP",
            },
            "--paper": {"action": "store_true", "help": "draw the paper's 40 training and 5 test patients"},
        },
    ),
    "tao": Published(
        "convert TAO (thyroid-associated orbitopathy): T1 and T1c MRI of the orbits, 8 structures",
        503,
        "Dataset503_TAO",
        "a folder for each patient, with T1.nii.gz, T1_label.nii.gz, T1c.nii.gz, T1c_label.nii.gz",
        {},
    ),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    folders = _add_source(sources, "folders", convert_folders.HELP, convert_folders.DESCRIPTION, None)
    convert_folders.add_folders_arguments(folders)
    _add_common_arguments(folders)
    for name, published in PUBLISHED.items():
        own = _add_source(sources, name, published.help, published.help, published.dataset_id)
        own.add_argument("-i", dest="folder", required=True, metavar="FOLDER", help=published.folder)
        for option, settings in published.options.items():
            own.add_argument(option, **settings)
        _add_common_arguments(own)


def _add_source(
    sources: argparse._SubParsersAction, name: str, help: str, description: str, dataset_id: int | None
) -> argparse.ArgumentParser:
    raw = argparse.RawDescriptionHelpFormatter
    parser = sources.add_parser(name, help=help, description=description, formatter_class=raw)
    id_help = "dataset ID, 1 to 999" + ("" if dataset_id is None else "; default: %(default)s")
    required = dataset_id is None
    parser.add_argument(
        "-d", dest="dataset_id", type=int, default=dataset_id, required=required, metavar="ID", help=id_help
    )
    return parser


def _add_common_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dry-run", action="store_true", help="check, list what would be written, and write nothing")
    parser.add_argument("--allow-empty-labels", action="store_true", help="accept labels that show no class at all")
    parser.add_argument(
        "--link",
        action="store_true",
        help="hard links to scans that need no change, not copies: they take no space, but are the same files",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of all random choices; default: %(default)s")
    add_processes(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    options = {name: value for name, value in vars(args).items() if name not in ("run", "source", "json")}
    options["processes"] = processes_of(args)
    print("Listing files; folders of DICOM images take longest.", flush=True)
    if args.source == "folders":
        folder = convert_folders.convert(**options)
    else:
        module = import_module(f"nnunet_cmc.dataset_conversion.{PUBLISHED[args.source].module}")
        folder = getattr(module, f"convert_{args.source}")(**options)
    if args.dry_run:
        return Outcome({"dataset": folder.name})
    return Outcome({"dataset": folder.name, "cases": _summarize(folder)}, [folder])


def _summarize(folder: Path) -> dict[str, dict[str, int]]:
    """Print and return the number of cases of each part, in total and per modality, and of their subjects."""
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.data.format.scan_folder import by_case, visible_files
    from nnunet_cmc.dataset_conversion.dataset_writer import describe_pairing
    from nnunet_cmc.evaluation.tables import text_table

    description = DatasetDescription.read(folder / "dataset.json")
    ending, names = description.file_ending, description.modalities
    counts = {}
    for part, meaning in {"imagesTr": "labelled", "imagesUn": "unlabelled", "imagesTs": "test"}.items():
        cases = by_case(visible_files(folder / part, ending), ending)
        shown = [channel for case in cases for channel in description.present_channels[case]]
        subjects = {description.subject_of(case) for case in cases}
        of_modalities = {name: shown.count(channel) for channel, name in enumerate(names)}
        counts[meaning] = {"cases": len(cases), "subjects": len(subjects), **of_modalities}
    rows = [["", "cases", "subjects", *names], *([part, *map(str, own.values())] for part, own in counts.items())]
    print(f"\n{text_table(rows, numbers_from=1)}")
    print(describe_pairing(description))
    return counts
