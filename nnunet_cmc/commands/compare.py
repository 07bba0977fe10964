"""``nnunet_cmc compare``: train, predict and evaluate several trainers on one dataset, as the paper's Table 1."""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnunet_cmc.commands.arguments import (
    add_configuration,
    add_dataset,
    add_device,
    add_disable_tta,
    add_processes,
    positive_number,
    processes_of,
    raw_dataset,
    whole_number,
)
from nnunet_cmc.commands.outcome import Outcome, PartialError, add_json

if TYPE_CHECKING:
    from nnunet_cmc.commands.compared_systems import System
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.evaluation.evaluated_cases import EvaluatedCases
    from nnunet_cmc.evaluation.paired_statistics import Comparison

HELP = "train, predict and evaluate several trainers on one dataset, and test their differences"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_dataset(parser)
    parser.add_argument("-p", dest="plans", default="CMCNNUNetPlans", help="plans of the systems (%(default)s)")
    add_configuration(parser)
    parser.add_argument(
        "-tr",
        "--trainers",
        nargs="+",
        required=True,
        metavar="TRAINER[:PLANS]",
        help="trainers to compare, such as SupTrainer CMCTrainer nnUNetTrainer:nnUNetPlans; each is tested against the "
        "first",
    )
    parser.add_argument("-f", "--folds", nargs="+", required=True, metavar="FOLD", help="folds to train, such as 0 1 2")
    parser.add_argument(
        "--jobs", type=positive_number, default=1, metavar="N", help="trainings at the same time (%(default)s)"
    )
    add_device(parser, "--device")
    parser.add_argument(
        "-o",
        "--output",
        metavar="FOLDER",
        help="folder of all results except the trained models, which are written to nnUNet_results; an interrupted "
        "comparison resumes in it; default: comparison_DATASET, here",
    )
    parser.add_argument(
        "--seed", type=whole_number, default=0, help="seed of the trainings; nnU-Net's own trainers ignore it (0)"
    )
    add_disable_tta(parser)
    add_processes(parser, what="processes of the evaluation")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    import torch

    from nnunet_cmc.commands.compared_systems import find_systems
    from nnunet_cmc.commands.comparison_plan import Run, plan_text, require_same_split
    from nnunet_cmc.commands.comparison_runs import Runner, Settings, why
    from nnunet_cmc.commands.settings import keep_settings, require_same_settings
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.data.format.splits import load_fold, splits_in_force
    from nnunet_cmc.evaluation.paper_table import to_screen
    from nnunet_cmc.utils.devices import require_device
    from nnunet_cmc.utils.files import require_writable
    from nnunet_cmc.utils.formatting import counted

    folds = _folds(args)
    raw = raw_dataset(args.dataset)
    if splits := splits_in_force(raw.name):
        for fold in folds:
            if fold != "all":
                load_fold(splits, int(fold))  # before anything is trained
    description = DatasetDescription.read(raw / "dataset.json")
    systems = find_systems(args.trainers, args.plans, raw.name, args.configuration, description)
    require_device(torch.device(args.device))
    output = Path(args.output or f"comparison_{raw.name}").resolve()
    require_writable(output)
    settings = Settings(raw.name, args.configuration, args.device, args.seed, not args.disable_tta)
    kept = {key: value for key, value in vars(settings).items() if key != "device"}
    require_same_settings(output, kept, "comparison")  # before anything of this call is in the folder
    evaluated, what = _evaluated_cases(raw, folds, description, output)

    predictions = {(s, f): output / "predictions" / s.model.name / f"fold_{f}" for f in folds for s in systems}
    runs = [Run(s, f, evaluated[f], folder) for (s, f), folder in predictions.items()]
    print(f"{what}\nEverything except the trained models is written to {output}.", flush=True)
    require_same_split(runs, {name: cases.fold for name, cases in evaluated.items() if cases.fold})
    keep_settings(output, kept, "comparison")
    runner = Runner(settings, output / "logs", args.jobs)
    print(f"\n{plan_text(runs, args.jobs, runner.time_trials(runs))}\n", flush=True)
    failures = runner.run(runs)
    missing = why(failures, runner.logs)
    if len(missing) == len(systems):
        name, reason = next(iter(missing.items()))
        raise ValueError(
            f"No system has a result, such as {name}, {reason.rstrip('.')}: correct that, or name others in --trainers."
        )
    comparison = _compare([s for s in systems if s.name not in missing], evaluated, predictions, args, missing, what)
    written = _write(comparison, evaluated, output, processes_of(args))
    print(f"\n{to_screen(comparison)}")
    outcome = Outcome(comparison.as_json(), written)
    if crashed := [run for run, error in failures.items() if error.refusal is None]:
        raise PartialError(
            f"{counted(len(crashed), 'run')} failed, such as {crashed[0].name}: see {runner.logs}, and run this "
            "again when the cause is gone; finished runs are kept.",
            outcome,
        )
    return outcome


def _folds(args: argparse.Namespace) -> list[str]:
    if wrong := [fold for fold in args.folds if fold != "all" and not fold.isdecimal()]:
        raise ValueError(f"A fold is a number from 0 on, or all, but not {wrong[0]}: correct --folds.")
    return list(dict.fromkeys(fold if fold == "all" else str(int(fold)) for fold in args.folds))


def _evaluated_cases(
    raw: Path, folds: Sequence[str], description: "DatasetDescription", output: Path
) -> tuple[dict[str, "EvaluatedCases"], str]:
    """Prepare the cases that each fold is evaluated on, and describe them."""
    from nnunet_cmc.evaluation.evaluated_cases import labeled_test_cases, lay_out, validation_cases, validation_fold
    from nnunet_cmc.utils.formatting import counted

    modalities = "from each modality alone and from all that the case has"
    if test := labeled_test_cases(raw, description):
        evaluated = dict.fromkeys(folds, lay_out(test, description, output / "evaluated" / "test"))
        models = f"{'the model of fold' if len(folds) == 1 else 'each model of the folds'} {', '.join(folds)}"
        what = f"the {counted(len(test), 'test case')} of {raw / 'labelsTs'}"
        return evaluated, f"Evaluated on {what}, which {models} predicts {modalities}."
    evaluated = {}
    for name in folds:
        fold = validation_fold(raw, name)
        cases = validation_cases(raw, fold, description)
        evaluated[name] = lay_out(cases, description, output / "evaluated" / f"fold_{name}", fold)
    number = ", ".join(f"fold {name}: {len(cases.fold.val)}" for name, cases in evaluated.items() if cases.fold)
    return evaluated, (
        f"Evaluated on validation cases ({number}), since there are no labelled test cases, predicted {modalities}. "
        "Trainers with a decoder per modality, and all of ours where no labelled case has two of the modalities "
        "registered, weight the modalities by their Dice on patches of these cases: such results are slightly "
        "optimistic."
    )


def _compare(
    systems: Sequence["System"],
    evaluated: Mapping[str, "EvaluatedCases"],
    predictions: Mapping[tuple["System", str], Path],
    args: argparse.Namespace,
    missing: Mapping[str, str],
    what: str,
) -> "Comparison":
    from nnunet_cmc.evaluation.evaluated_cases import name_in, pool
    from nnunet_cmc.evaluation.folder_evaluation import evaluate_folder
    from nnunet_cmc.evaluation.paired_statistics import Comparison

    processes = processes_of(args)
    evaluations = {}
    for system in systems:
        print(f"Evaluating {system.name}", flush=True)
        of_folds = {
            fold: evaluate_folder(cases.labels, predictions[system, fold], cases.description, processes)
            for fold, cases in evaluated.items()
        }
        evaluations[system.name] = pool(of_folds)
    subjects = {
        name_in(evaluated, case, fold): subject
        for fold, cases in evaluated.items()
        for case, subject in cases.description.subjects.items()
    }
    return Comparison(evaluations, subjects, missing=missing, remarks=[what], progress=True)


def _write(
    comparison: "Comparison", evaluated: Mapping[str, "EvaluatedCases"], output: Path, processes: int
) -> list[Path]:
    from nnunet_cmc.data.preprocessing.normalization import ct_modalities
    from nnunet_cmc.evaluation.case_gallery import files_of_page
    from nnunet_cmc.evaluation.evaluated_cases import name_in
    from nnunet_cmc.evaluation.label_maps import label_maps
    from nnunet_cmc.evaluation.metrics import METRICS
    from nnunet_cmc.evaluation.paper_table import save_comparison
    from nnunet_cmc.evaluation.report import find_scans, save_report
    from nnunet_cmc.evaluation.results import save_csv

    written = save_comparison(comparison, output)
    table = output / "comparison.csv"
    save_csv(comparison.table, ["prediction", "subject", "case", "modalities", "class"], METRICS, table)
    scans = {
        name_in(evaluated, case, fold): files
        for fold, cases in evaluated.items()
        for case, files in find_scans(
            cases.images, cases.description, label_maps(cases.labels, cases.description.file_ending)
        ).items()
    }
    print("Drawing the figures.", flush=True)
    ct = {name for cases in evaluated.values() for name in ct_modalities(cases.description)}
    return [*written, table, *files_of_page(save_report(output, comparison, scans, processes, ct=ct))]
