"""``nnunet_cmc convert``: bring scans into nnU-Net's raw format."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

HELP = "bring scans into the raw format of nnU-Net"

FOLDERS_HELP = """\
Make nnUNet_raw/DatasetID_NAME from folders of scans (.nii.gz .nii .nrrd .mha .mhd).

Registered scans, all of a patient on one grid: one folder of labels. Files of the same name are one case.
  nnunet_cmc convert folders -d 502 --name Abdomen --images CT=ct/ MR=mr/ --labels labels/ --classes liver=1 spleen=2
Separate scans, each on its own grid or of its own patient: a folder of labels for each modality.
  nnunet_cmc convert folders -d 502 --name Abdomen --images CT=ct/ MR=mr/ --labels CT=ct_labels/ MR=mr_labels/ \\
      --classes liver=1 spleen=2
A scan without a label is used as an unlabelled one. Instead of a folder, a path with one * (in quotes) may be given,
which stands for the name: --images FLAIR='scans/*_flair.nii.gz' T1='scans/*_t1.nii.gz' --labels 'scans/*_label.nii.gz'
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    sources = parser.add_subparsers(dest="source", required=True, metavar="SOURCE")
    folders = sources.add_parser(
        "folders",
        help="any data, given as folders of scans",
        description=FOLDERS_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    folders.add_argument("-d", dest="dataset_id", type=int, required=True, metavar="ID", help="dataset ID, 1 to 999")
    folders.add_argument("--name", required=True, help="name of the dataset")
    folders.add_argument(
        "--images", nargs="+", required=True, metavar="NAME=FOLDER", help="scans of each modality, in channel order"
    )
    folders.add_argument(
        "--labels",
        nargs="+",
        required=True,
        metavar="[NAME=]FOLDER",
        help="labels: one folder (registered scans), or one for each modality (separate scans)",
    )
    folders.add_argument(
        "--classes",
        nargs="+",
        required=True,
        metavar="CLASS=VALUE",
        help="value of each class in the labels, or a file of them: JSON (as in a dataset.json), or ITK-SNAP's labels",
    )
    folders.add_argument("--test-images", nargs="+", metavar="NAME=FOLDER", help="scans of the test part")
    folders.add_argument("--test-labels", nargs="+", metavar="[NAME=]FOLDER", help="labels of the test part")
    folders.set_defaults(convert=_convert_folders)


def run(args: argparse.Namespace) -> None:
    folder = args.convert(args)
    _print_summary(folder)


def _convert_folders(args: argparse.Namespace) -> Path:
    from nnunet_cmc.dataset_conversion.folders import convert_folders

    return convert_folders(
        args.dataset_id,
        args.name,
        _pairs(args.images, "--images"),
        _labels(args.labels, "--labels"),
        _classes(args.classes),
        _pairs(args.test_images, "--test-images") if args.test_images else None,
        _labels(args.test_labels, "--test-labels") if args.test_labels else None,
    )


def _pairs(entries: Sequence[str], option: str) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for entry in entries:
        name, equals, value = entry.partition("=")
        if not (name and equals and value):
            raise ValueError(f"{option} takes NAME=FOLDER for each modality, such as CT=scans/ct, but got {entry!r}.")
        if name in pairs:
            raise ValueError(f"{option} names {name} twice.")
        pairs[name] = value
    return pairs


def _labels(entries: Sequence[str], option: str) -> str | dict[str, str]:
    if any("=" in entry for entry in entries):
        return _pairs(entries, option)
    if len(entries) > 1:
        raise ValueError(
            f"{option} takes one folder (registered scans) or NAME=FOLDER for each modality, but got {len(entries)} "
            "folders: put a path with a * in quotes."
        )
    return entries[0]


def _classes(entries: Sequence[str]) -> dict[str, int]:
    from nnunet_cmc.dataset_conversion.label_names import read_classes

    if len(entries) == 1 and "=" not in entries[0] and Path(entries[0]).suffix:
        return read_classes(entries[0])
    classes: dict[str, int] = {}
    for entry in entries:
        name, _, value = entry.rpartition("=")
        if name in classes:
            raise ValueError(f"--classes names {name} twice.")
        if not name or not value.isdecimal():
            raise ValueError(f"--classes takes CLASS=VALUE, such as liver=1, or a file of them, but got {entry!r}.")
        classes[name] = int(value)
    return classes


def _print_summary(folder: Path) -> None:
    dataset_json = json.loads((folder / "dataset.json").read_text())
    present = dataset_json["cmc"]["present_channels"]
    ending = dataset_json["file_ending"]
    print(f"\n{folder}\n{'':16}{'cases':>8}", *(f"{name:>8}" for name in dataset_json["channel_names"].values()))
    parts = {"imagesTr": "labelled", "imagesUn": "unlabelled", "imagesTs": "test"}
    for part, meaning in parts.items():
        files = folder.glob(f"{part}/*{ending}")
        cases = {file.name[: -len(ending) - len("_0000")] for file in files}
        counts = (sum(int(c) in present[case] for case in cases) for c in dataset_json["channel_names"])
        print(f"{meaning:16}{len(cases):8}", *(f"{count:8}" for count in counts))
