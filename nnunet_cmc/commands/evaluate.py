"""``nnunet_cmc evaluate``: evaluate predicted label maps against reference label maps."""

import argparse
import os
from pathlib import Path

from nnunet_cmc.commands.arguments import add_processes, distance, processes_of, raw_dataset
from nnunet_cmc.commands.outcome import Outcome, add_json
from nnunet_cmc.data.format.dataset_json import DatasetDescription

HELP = "compute Dice, IoU, ASSD, HD95 and NSD per class and modality of one or several predictions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-r", "--reference", required=True, help="folder with the reference label maps")
    parser.add_argument(
        "-p",
        "--prediction",
        required=True,
        action="append",
        metavar="[NAME=]FOLDER",
        help="folder with the predicted label maps; repeat it to compare several, each is tested against the first",
    )
    parser.add_argument("-d", "--dataset", metavar="ID", help="dataset ID or name; default: PREDICTION/dataset.json")
    parser.add_argument("-o", "--output", help="output folder; default, for one prediction: its folder")
    parser.add_argument(
        "--report", action="store_true", help="write report.html with plots and slices of all cases, too"
    )
    parser.add_argument(
        "-i", "--images", help="the scans, for --report; default: the folder imagesX beside the reference labelsX"
    )
    parser.add_argument(
        "--stress",
        action="append",
        metavar="[NAME=]FOLDER",
        help="output of nnunet_cmc stress, for --report; give it several times to compare models",
    )
    add_processes(parser, "--processes", what="processes of the evaluation")
    parser.add_argument(
        "--tolerance", type=distance, default=2.0, metavar="MM", help="tolerance of NSD in mm; default: %(default)g"
    )
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nnunet_cmc.data.preprocessing.normalization import ct_modalities
    from nnunet_cmc.evaluation.case_gallery import files_of_page
    from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder, matched_files
    from nnunet_cmc.evaluation.label_maps import label_maps
    from nnunet_cmc.evaluation.paired_statistics import Comparison
    from nnunet_cmc.evaluation.paper_table import save_comparison, to_screen
    from nnunet_cmc.evaluation.tables import format_table
    from nnunet_cmc.utils.files import require_writable

    predictions = _named_folders(args.prediction)
    if args.stress and not args.report:
        raise ValueError("--stress is shown in the report: add --report.")
    several, (first, *_) = len(predictions) > 1, predictions.values()
    if several and args.output is None:
        raise ValueError("Several predictions are compared in a folder of their own: name it with -o.")
    description = _description(args.dataset, first)
    references = label_maps(args.reference, description.file_ending)
    if args.report:
        from nnunet_cmc.evaluation.report import find_scans, save_report
        from nnunet_cmc.evaluation.stress_figures import StressRuns

        stress = StressRuns(_named_folders(args.stress, "--stress")) if args.stress else None
        scans = find_scans(args.images or _images_beside(args.reference), description, references)

    for folder in predictions.values():  # before the evaluation, which takes long
        matched_files(args.reference, folder, description.file_ending)
    output = Path(args.output or first)
    require_writable(output)
    evaluations = {}
    for number, (name, folder) in enumerate(predictions.items(), 1):
        if several:
            print(f"{number} of {len(predictions)}, {name}: {folder}", flush=True)
        evaluations[name] = evaluate_folder(args.reference, folder, description, processes_of(args), args.tolerance)
    comparison = Comparison(evaluations, {case: description.subject_of(case) for case in references}, progress=True)
    written = save_comparison(comparison, output)
    if args.report:
        print("Drawing the figures.", flush=True)
        ct = ct_modalities(description)
        written += files_of_page(save_report(output, comparison, scans, processes_of(args), stress, ct))

    print(to_screen(comparison) if several else format_table(evaluations[name]))
    for name, evaluation in evaluations.items():
        if evaluation.without_reference:
            cases = ", ".join(evaluation.without_reference)
            print(f"\n{name}: predicted, but without a reference and not evaluated: {cases}.")
    unevaluated = {name: one.without_reference for name, one in evaluations.items()}
    return Outcome({**comparison.as_json(), "without_reference": unevaluated}, written)


def _named_folders(arguments: list[str], option: str = "-p") -> dict[str, str]:
    """Return the folders by name: ``NAME=FOLDER``, or a folder that gives its own name."""
    folders: dict[str, str] = {}
    for argument in arguments:
        name, _, folder = argument.partition("=")
        if not name or not folder or os.sep in name or Path(argument).is_dir():
            name, folder = Path(argument).resolve().name, argument
        if name in ("", ".", ".."):
            raise ValueError(f"{argument} names no folder for its results: name it with {option} NAME=FOLDER.")
        if name in folders:
            raise ValueError(
                f"{folders[name]} and {folder} are both named {name}: name them with {option} NAME=FOLDER."
            )
        folders[name] = folder
    return folders


def _images_beside(reference: str) -> Path:
    """Return nnU-Net's folder of the scans for that of the labels: imagesTs for labelsTs."""
    folder = Path(reference).resolve()
    if not folder.name.startswith("labels"):
        raise ValueError(f"The scans of {reference} are not known: name their folder with -i.")
    return folder.with_name(folder.name.replace("labels", "images", 1))


def _description(dataset: str | None, prediction_folder: str) -> DatasetDescription:
    """Read ``dataset.json`` of the raw dataset, or the copy that nnUNetv2_predict writes beside its predictions."""
    if dataset is not None:
        return DatasetDescription.read(raw_dataset(dataset) / "dataset.json")
    file = Path(prediction_folder, "dataset.json")
    if not file.is_file():
        raise ValueError(
            f"There is no {file}, which says what the labels and modalities are: name the dataset with -d."
        )
    return DatasetDescription.read(file)
