"""``nnunet_cmc inspect``: pictures and tables of a converted dataset before training."""

import argparse
from pathlib import Path

from nnunet_cmc.commands.arguments import add_dataset, add_processes, processes_of, raw_dataset
from nnunet_cmc.commands.outcome import Outcome, add_json

HELP = "write a page with pictures of all cases of a dataset, and summarize the dataset in tables"


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
    from nnunet_cmc.data.preprocessing.normalization import ct_modalities
    from nnunet_cmc.data.reading.raw_dataset import check_dataset
    from nnunet_cmc.evaluation.case_gallery import files_of_page, gallery, save_opener
    from nnunet_cmc.evaluation.inspection import NOTE, case_entry, find_cases, overview, overview_text
    from nnunet_cmc.evaluation.label_maps import classes_of
    from nnunet_cmc.evaluation.pages import write_page
    from nnunet_cmc.utils.files import require_writable
    from nnunet_cmc.utils.parallel import run_parallel

    folder = raw_dataset(args.dataset)
    description = DatasetDescription.read(folder / "dataset.json")
    check_dataset(str(folder), description)
    classes, _ = classes_of(description)
    cases = find_cases(folder, description)
    output = Path(args.output or f"inspect_{folder.name}")
    require_writable(output)
    ct = ct_modalities(description)
    jobs = [(output / "cases" / case.name, case, classes, ct) for case in cases]
    found = run_parallel(_draw, jobs, processes_of(args), "Drawing")
    facts = [fact for fact, _ in found]
    tables, page = overview(facts, description.modalities, classes), output / "index.html"
    write_page(
        page,
        "inspection",
        title=folder.name,
        tables=tables,
        note=NOTE,
        gallery=gallery([case_entry(fact, pictures, classes) for fact, pictures in found], classes),
        cases_note="Slices that together show every class of the label, CT in the window of the choice, "
        "other modalities from the 1st to the 99.5th percentile of their values.",
        sorted_by="",
    )
    save_opener(page, [fact.files for fact in facts])
    print(f"\n{overview_text(tables)}")
    return Outcome({"dataset": folder.name, "cases": [fact.as_json() for fact in facts]}, files_of_page(page))


def _draw(folder, case, classes, ct):
    from nnunet_cmc.evaluation.case_pictures import save_case
    from nnunet_cmc.evaluation.inspection import summarize_case

    facts = summarize_case(case, classes)
    return facts, save_case(folder, facts.files, classes, ct)
