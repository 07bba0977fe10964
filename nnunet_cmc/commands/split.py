"""``nnunet_cmc split``: choose the training cases that keep their labels, and the validation cases."""

import argparse
from dataclasses import replace

from nnunet_cmc.commands.arguments import add_dataset, raw_dataset, whole_number
from nnunet_cmc.commands.outcome import Outcome, add_json
from nnunet_cmc.data.format.dataset_json import DatasetDescription

VAL = 0.2  # without --val
HELP = "write folds: which training cases keep their labels, and which are for validation"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    kind = parser.add_mutually_exclusive_group(required=True)
    kind.add_argument(
        "--labeled",
        nargs="+",
        type=float,
        metavar="FRACTION",
        help="fractions of the training cases that keep their labels, such as 0.1 0.2 1.0: one fold for each",
    )
    kind.add_argument("--folds", type=int, metavar="K", help="a K-fold cross-validation with every label kept instead")
    parser.add_argument(
        "--val",
        type=float,
        metavar="FRACTION",
        help=f"fraction of the subjects used for validation, without --folds ({VAL})",
    )
    parser.add_argument(
        "--inductive",
        action="store_true",
        help="exclude from each fold the scans of imagesUn that are of its validation subjects or of test subjects",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the draw (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nnunet_cmc.data.format.scan_folder import by_channel
    from nnunet_cmc.data.format.splits import held_out_scans, make_folds, make_splits, write_splits
    from nnunet_cmc.data.reading.raw_dataset import cases_of_part

    raw = raw_dataset(args.dataset)
    description = DatasetDescription.read(raw / "dataset.json")
    ending = description.file_ending
    parts = [cases_of_part(raw, part, description) for part in ("Tr", "Un", "Ts")]
    cases, unlabeled, test = ({case: by_channel(files, ending) for case, (files, _) in part.items()} for part in parts)
    if not cases:
        raise ValueError(f"{raw / 'imagesTr'} holds no case: convert the dataset again.")
    if missing := [(case, label) for case, (_, label) in parts[0].items() if not label.is_file()]:
        case, label = missing[0]
        raise ValueError(
            f"Case {case} of imagesTr has no label {label} ({len(missing)} in all): add it, or move its scans to "
            "imagesUn."
        )
    description = _with_measured_presence(description, cases)
    if args.folds is not None:
        if args.val is not None:
            raise ValueError("--folds validates each of its K folds on one K-th of the subjects: leave out --val.")
        splits = make_folds(description, cases, args.folds, args.seed)
    else:
        splits = make_splits(
            description, cases, labeled=args.labeled, val=VAL if args.val is None else args.val, seed=args.seed
        )
    held_out = [held_out_scans(description, fold["train"], fold["val"], test, unlabeled) for fold in splits]
    if args.inductive:
        splits = [{**fold, "left_out": scans} if scans else fold for fold, scans in zip(splits, held_out, strict=True)]
    files = write_splits(raw.name, splits)

    print(_table(description, splits, {case: tuple(channels) for case, channels in unlabeled.items()}))
    if any(held_out):
        scans = ", ".join(sorted(set().union(*held_out)))
        print(
            f"Unlabelled scans of validation or test subjects: {scans}. "
            + ("They are left out." if args.inductive else "They are trained on; --inductive leaves them out.")
        )
    if any(file.with_name("dataset_fingerprint.json").is_file() for file in files):
        print(
            "Plan and preprocess again: intensity statistics in existing plans were computed from the previous labels."
        )
    return Outcome({"dataset": raw.name, "folds": splits, "held_out_scans": held_out}, files)


def _with_measured_presence(description: DatasetDescription, cases: dict[str, dict[int, str]]) -> DatasetDescription:
    """Complete the present channels of every case, from the voxels if ``description`` does not state them."""
    from tqdm import tqdm

    from nnunet_cmc.data.reading.raw_case import measured_channels

    silent = [case for case in cases if case not in description.present_channels]
    measured = {}
    for case in tqdm(silent, desc="Reading which modalities are present", unit="case", disable=not silent):
        measured[case] = measured_channels(case, cases[case])
        if not measured[case]:
            raise ValueError(f"Case {case} of imagesTr is zero everywhere in every channel: remove it with its label.")
    return replace(description, present_channels={**description.present_channels, **measured})


def _table(description: DatasetDescription, splits: list[dict], unlabeled: dict[str, tuple[int, ...]]) -> str:
    """Format the number of cases in each part of each fold, in total and per modality."""
    from nnunet_cmc.evaluation.tables import text_table

    def counts(cases: list[str]) -> list[int]:
        shown = [unlabeled.get(case) or description.present_channels.get(case, ()) for case in cases]
        return [len(cases), *(sum(channel in channels for channels in shown) for channel in range(len(names)))]

    names = description.modalities
    rows = [["fold", "part", "cases", *names]]
    for fold, split in enumerate(splits):
        hidden, used = split.get("unlabeled", []), set(unlabeled) - set(split.get("left_out", []))
        parts = {"labelled": split["train"], "unlabelled": [*hidden, *used], "validation": split["val"]}
        for part, own in parts.items():
            rows.append([str(fold) if part == "labelled" else "", part, *map(str, counts(own))])
    return text_table(rows, numbers_from=0)
