"""``nnunet_cmc inspect``: pictures and tables of a converted dataset before training."""

import argparse
from pathlib import Path

from nnunet_cmc.commands.arguments import add_dataset, add_processes, processes_of, raw_dataset
from nnunet_cmc.commands.outcome import Outcome, add_json

HELP = "write a page with pictures of all cases of a dataset, and summarize the dataset in tables"
ROWS = 10  # cases in a picture


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument(
        "-o",
        dest="output",
        metavar="FOLDER",
        help="folder of the page and its pictures; default: inspect_DATASET, here",
    )
    add_processes(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.data.format.raw_dataset import check_dataset
    from nnunet_cmc.evaluation.folder_evaluation import classes_of
    from nnunet_cmc.evaluation.inspection import find_cases, overview
    from nnunet_cmc.evaluation.pages import write_page
    from nnunet_cmc.utils.parallel import run_parallel

    folder = raw_dataset(args.dataset)
    description = DatasetDescription.read(folder / "dataset.json")
    check_dataset(str(folder), description)
    modalities, (classes, _) = description.modalities, classes_of(description)
    cases = find_cases(folder, description)
    output = Path(args.output or f"inspect_{folder.name}")
    (output / "pictures").mkdir(parents=True, exist_ok=True)
    jobs = [
        (output / "pictures" / f"{number:03d}.png", cases[first : first + ROWS], modalities, classes)
        for number, first in enumerate(range(0, len(cases), ROWS), 1)
    ]
    facts = [fact for page in run_parallel(_draw, jobs, processes_of(args), "Drawing") for fact in page]
    table = overview(facts, modalities, classes)
    page, pictures = output / "index.html", [file.name for file, *_ in jobs]
    write_page(page, "inspection", title=folder.name, table=table, pictures=pictures)
    print(f"\n{table}")
    return Outcome({"dataset": folder.name, "cases": [one.as_json() for one in facts]}, [page])


def _draw(file, cases, modalities, classes):
    from nnunet_cmc.evaluation.inspection import summarize_case
    from nnunet_cmc.evaluation.inspection_picture import save_cases

    facts = [summarize_case(case, classes) for case in cases]
    save_cases(file, facts, modalities, classes)
    return facts
