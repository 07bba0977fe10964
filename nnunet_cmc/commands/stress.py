"""``nnunet_cmc stress``: evaluate a trained model with missing and with misaligned modalities."""

import argparse
import hashlib
from pathlib import Path
from typing import Any

from nnunet_cmc.commands.arguments import add_model, model_folder

HELP = "predict and judge a test set with modalities missing, and with one misaligned: tables and curves"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument("-i", dest="images", required=True, metavar="FOLDER", help="scans, such as imagesTs")
    parser.add_argument("-r", dest="reference", required=True, metavar="FOLDER", help="their label maps, as labelsTs")
    parser.add_argument(
        "-o", dest="output", required=True, metavar="FOLDER", help="for everything; one it was interrupted in resumes"
    )
    parser.add_argument("-tr", dest="trainer", default="CMCTrainer", help="trainer of the model (%(default)s)")
    parser.add_argument("--disable_tta", action="store_true", help="no mirroring at prediction: faster")
    parser.add_argument(
        "-np", dest="processes", type=int, help="of preprocessing, export and judging (3; on a CPU everything in one)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the directions of misalignment (%(default)s)")


def run(args: argparse.Namespace) -> None:
    from nnunet_cmc.data.format.dataset_json import DatasetDescription
    from nnunet_cmc.evaluation.stress_figures import save_stress_figures
    from nnunet_cmc.evaluation.stress_results import save_stress, summarize
    from nnunet_cmc.evaluation.stress_testing import find_cases, stress_test
    from nnunet_cmc.inference.verify import verify

    model = model_folder(args, args.trainer)
    for file, problem in verify(model):
        if problem:  # and nnU-Net, which predicts, unpickles checkpoints
            raise ValueError(f"{file} cannot be trusted: {problem.rstrip('.')}.")
    description = DatasetDescription.read(model / "dataset.json")
    cases = find_cases(args.images, args.reference, description)
    _resume(args, model)
    processes = args.processes or (1 if args.device == "cpu" else 3)
    print(f"{len(cases)} cases with several modalities; what nnU-Net says goes to {Path(args.output, 'log.txt')}.")
    evaluations = stress_test(
        _Predictor(model, args, processes),
        cases,
        args.reference,
        description,
        args.output,
        processes=processes,
        seed=args.seed,
    )
    names = description.modalities
    written = save_stress(evaluations, names, args.output)
    written += save_stress_figures(summarize(evaluations, names), names, args.output)
    print(f"\n{'condition':<24}{'cases':>6}{'Dice':>8}{'ASSD [mm]':>11}")
    for condition, evaluation in evaluations.items():
        dice, assd = (evaluation.mean(metric).mean for metric in ("Dice", "ASSD"))
        print(f"{condition.name:<24}{len(evaluation.cases):>6}{dice:>8.3f}{assd:>11.2f}")
    print(f"\nWritten: {', '.join(map(str, written))}")


class _Predictor:
    """nnU-Net's predictor with the trained model, loaded when it is first needed."""

    def __init__(self, model: Path, args: argparse.Namespace, processes: int):
        self.model, self.args, self.processes = model, args, processes
        self.predictor: Any = None

    def __call__(self, inputs: list[list[str]], outputs: list[str]) -> None:
        import torch
        from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

        if self.predictor is None:
            self.predictor = nnUNetPredictor(
                use_mirroring=not self.args.disable_tta, device=torch.device(self.args.device), allow_tqdm=False
            )
            self.predictor.initialize_from_trained_model_folder(str(self.model), self.args.folds)
        if self.processes <= 1:
            self.predictor.predict_from_files_sequential(inputs, outputs)
        else:
            kinds = ("num_processes_preprocessing", "num_processes_segmentation_export")
            self.predictor.predict_from_files(inputs, outputs, **dict.fromkeys(kinds, self.processes))


def _resume(args: argparse.Namespace, model: Path) -> None:
    """Write the settings of this test to its folder, or refuse one with another test; files are compared by SHA-256."""
    from nnunet_cmc.utils.files import read_json, write_json

    checkpoints = [model / f"fold_{fold}" / "checkpoint_final.pth" for fold in args.folds]
    files = [*sorted(model.glob("*.json")), *checkpoints]
    scans = [scan for scan in Path(args.images).iterdir() if scan.is_file() and not scan.name.startswith(".")]
    settings = {
        "model": {str(file.relative_to(model)): _sha256(file) for file in files},
        "folds": args.folds,
        "images": {scan.name: _sha256(scan) for scan in sorted(scans)},
        "disable_tta": args.disable_tta,
        "seed": args.seed,
    }
    file = Path(args.output, "settings.json")
    if file.is_file():
        before = read_json(file, f"remove {args.output}, or name another folder with -o")
        if before != settings:
            known = before if isinstance(before, dict) else {}
            changed = [name for name in settings if known.get(name) != settings[name]]
            raise ValueError(
                f"{args.output} has predictions of another stress test, with other {', '.join(changed)} ({file}): name "
                "another folder with -o."
            )
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    write_json(file, settings)


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while part := content.read(1 << 20):
            digest.update(part)
    return digest.hexdigest()
