"""``nnunet_cmc stress``: evaluate a trained model with missing and with misaligned modalities."""

import argparse
import hashlib
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

from nnunet_cmc.commands.arguments import add_disable_tta, add_model, model_folder, positive_number, whole_number
from nnunet_cmc.commands.outcome import Outcome, add_json
from nnunet_cmc.data.format.checkpoint_names import final_checkpoint

HELP = "predict and evaluate a test set with modalities missing, and with one misaligned"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-i", dest="images", required=True, metavar="FOLDER", help="scans, such as imagesTs")
    parser.add_argument("-r", dest="reference", required=True, metavar="FOLDER", help="their label maps, as labelsTs")
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FOLDER",
        help="folder of all results; an interrupted test resumes in it",
    )
    parser.add_argument("-tr", "--trainer", default="CMCTrainer", help="trainer of the model (%(default)s)")
    add_disable_tta(parser)
    parser.add_argument(
        "-np",
        dest="processes",
        type=positive_number,
        help="processes of preprocessing, export and evaluation (3; on a CPU everything in one)",
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of the misalignments (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from nnunet_cmc.commands.settings import keep_settings
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.evaluation.stress_figures import save_stress_figures
    from nnunet_cmc.evaluation.stress_results import save_stress, summarize
    from nnunet_cmc.evaluation.stress_testing import find_multimodal_cases, stress_test
    from nnunet_cmc.inference.verify import verify
    from nnunet_cmc.utils.formatting import counted

    model = model_folder(args, args.trainer)
    print("Checking the model and the scans, whose SHA-256 tells later whether they are the same.", flush=True)
    for file, problem in verify(model):
        if problem:  # and nnU-Net, which predicts, unpickles checkpoints
            raise ValueError(
                f"{file} may execute code when nnU-Net loads it ({problem.rstrip('.')}): use a model from a source "
                "that you trust."
            )
    description = DatasetDescription.read(model / "dataset.json")
    cases = find_multimodal_cases(args.images, args.reference, description)
    keep_settings(Path(args.output), settings_of(args, model), "stress test")
    processes = args.processes or (1 if args.device == "cpu" else 3)
    log = Path(args.output, "log.txt")
    print(f"{counted(len(cases), 'case')} with several modalities; nnU-Net's output is written to {log}.")
    load = cache(partial(_load, model, args))  # when it is first needed
    evaluations = stress_test(
        partial(_predict, load, processes),
        *(cases, args.reference, description, args.output),
        processes=processes,
        seed=args.seed,
    )
    names = description.modalities
    written = save_stress(evaluations, names, args.output)
    summary = summarize(evaluations, names)
    print("Drawing the figures.", flush=True)
    written += [*save_stress_figures(summary, names, args.output), Path(args.output, "predictions")]
    print(f"\n{_table(summary)}")
    return Outcome({"conditions": summary}, written)


def _table(summary: Sequence[dict]) -> str:
    from nnunet_cmc.evaluation.stress_results import leaves_out
    from nnunet_cmc.evaluation.tables import MARK, MARK_NOTE

    def means(entry: dict, width: int) -> str:
        assd = f"{entry['mean']['ASSD']:.2f}{MARK * leaves_out(entry, 'ASSD')}"
        return f"{entry['mean']['Dice']:>{width}.3f}{assd:>11}"

    lines = [
        f"{'':49}{'the same cases unchanged':>27}",
        f"{'condition':<24}{'cases':>6}{'Dice':>8}{'ASSD [mm]':>11}{'Dice':>16}{'ASSD [mm]':>11}",
    ]
    for entry in summary:
        unchanged = entry.get("complete") or entry.get("unmoved") or entry
        lines.append(f"{entry['condition']:<24}{entry['cases']:>6}{means(entry, 8)}{means(unchanged, 16)}")
    text = "\n".join(lines)
    return f"{text}\n\n{MARK_NOTE}" if MARK in text else text


def _load(model: Path, args: argparse.Namespace) -> Any:
    import torch
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    mirroring = not args.disable_tta
    predictor = nnUNetPredictor(use_mirroring=mirroring, device=torch.device(args.device), allow_tqdm=False)
    predictor.initialize_from_trained_model_folder(str(model), args.folds)
    return predictor


def _predict(load: Callable[[], Any], processes: int, inputs: list[list[str]], outputs: list[str]) -> None:
    if processes <= 1:
        load().predict_from_files_sequential(inputs, outputs)
    else:
        kinds = ("num_processes_preprocessing", "num_processes_segmentation_export")
        load().predict_from_files(inputs, outputs, **dict.fromkeys(kinds, processes))


def settings_of(args: argparse.Namespace, model: Path) -> dict[str, Any]:
    """Return what the predictions depend on, with the SHA-256 of the files."""
    from tqdm import tqdm

    from nnunet_cmc.utils.files import visible

    checkpoints = [final_checkpoint(model, fold) for fold in args.folds]
    files = [*sorted(model.glob("*.json")), *checkpoints]
    scans = [scan for scan in visible(args.images) if scan.is_file()]
    return {
        "model": {str(file.relative_to(model)): _sha256(file) for file in files},
        "folds": args.folds,
        "images": {scan.name: _sha256(scan) for scan in tqdm(scans, "Checking", unit="scan")},
        "disable_tta": args.disable_tta,
        "seed": args.seed,
    }


def _sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()
