"""``nnunet_cmc explain``: class activation of the fused features of trained models."""

import argparse
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from nnunet_cmc.commands.arguments import add_model, model_folder
from nnunet_cmc.commands.outcome import Outcome, add_json
from nnunet_cmc.data.format.checkpoint_names import FINAL
from nnunet_cmc.data.format.dataset_json import DatasetDescription

HELP = "draw class activation maps (HiResCAM) of the fused features of one or several models"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_model(parser)
    parser.add_argument(
        "-tr", "--trainers", nargs="+", default=["CMCTrainer"], metavar="TRAINER",
        help="trainers of the models to show side by side, such as CMCTrainer CMCTrainerPaper_baseline (CMCTrainer)",
    )  # fmt: skip
    parser.add_argument("-i", dest="images", required=True, metavar="FOLDER", help="scans, such as imagesTs")
    parser.add_argument("-r", dest="reference", metavar="FOLDER", help="their label maps, if there are any")
    parser.add_argument("-o", "--output", required=True, metavar="FOLDER", help="folder of the pictures and volumes")
    parser.add_argument("--cases", nargs="+", metavar="CASE", help="cases to show; default: all in the folder of scans")
    parser.add_argument("--classes", nargs="+", metavar="CLASS", help="classes to show; default: all")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    from tqdm import tqdm

    from nnunet_cmc.data.reading.raw_case import require_one_grid
    from nnunet_cmc.evaluation.label_maps import classes_of, label_maps
    from nnunet_cmc.evaluation.shown_channels import present_scans
    from nnunet_cmc.inference.activation_picture import save_activations

    models = {trainer: model_folder(args, trainer) for trainer in dict.fromkeys(args.trainers)}
    description = DatasetDescription.read(next(iter(models.values())) / "dataset.json")
    classes, _ = classes_of(description)
    if unknown := [name for name in args.classes or () if name not in classes]:
        raise ValueError(f"There is no class {unknown[0]}; the dataset has {', '.join(classes)}: correct --classes.")
    asked = {name: classes[name] for name in classes if name in (args.classes or classes)}
    cases = _cases(args, description)
    ending, output = description.file_ending, Path(args.output)
    references = label_maps(args.reference, ending) if args.reference else {}
    if args.reference and (missing := [case for case in cases if case not in references]):
        raise ValueError(f"{args.reference} lacks the references of {', '.join(missing)}: add them, or omit -r.")
    if references:
        for case, by_channel in cases.items():
            require_one_grid(case, [*by_channel.values(), references[case]])

    def written(trainer: str, case: str) -> dict[str, Path]:
        return {kind: output / kind / trainer / (case + ending) for kind in ("activation", "prediction")}

    for trainer, model in models.items():
        _explain(args, trainer, model, cases, asked, {case: written(trainer, case) for case in cases})
    for case, by_channel in tqdm(cases.items(), desc="Drawing", unit="case"):
        scans = present_scans(list(by_channel.values()), description)
        files = {trainer: written(trainer, case) for trainer in models}
        save_activations(output / f"{case}.png", case, scans, files, classes, asked, references.get(case))
    pictures = {case: output / f"{case}.png" for case in cases}
    volumes = {
        case: {trainer: {kind: str(file) for kind, file in written(trainer, case).items()} for trainer in models}
        for case in cases
    }
    return Outcome({"cases": volumes}, [*pictures.values(), output / "activation", output / "prediction"])


def _explain(args: argparse.Namespace, trainer: str, model: Path, cases: dict, classes: dict, files: dict) -> None:
    import torch
    from tqdm import tqdm

    from nnunet_cmc.inference.class_activation import explain_case
    from nnunet_cmc.inference.trained_model import TrainedModel

    trained = TrainedModel(model, args.folds, FINAL)
    with redirect_stdout(StringIO()):  # nnU-Net prints a warning about an option that does not matter here
        predictor = trained.predictor(device=torch.device(args.device), allow_tqdm=False)
    for case in tqdm(cases, desc=trainer, unit="case"):
        explain_case(predictor, list(cases[case].values()), list(classes.values()), files[case])


def _cases(args: argparse.Namespace, description: DatasetDescription) -> dict[str, dict[int, str]]:
    """Return the channel files, by channel, of the wanted cases."""
    from nnunet_cmc.data.format.scan_folder import cases_to_read
    from nnunet_cmc.data.reading.raw_case import check_case

    folder = Path(args.images)
    files = cases_to_read(folder, description)
    wanted = args.cases or list(files)
    if missing := [case for case in wanted if case not in files]:
        raise ValueError(
            f"{folder} has no scan of {', '.join(missing)}: correct --cases, or name another folder by -i."
        )
    return {case: check_case(files[case], description)[1] for case in wanted}
