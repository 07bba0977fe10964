"""Arguments that name a trained model as nnU-Net's own commands do, and the folder that they mean."""

import argparse
from pathlib import Path


def add_model_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``-d -f -p -c -device``; each command adds the trainer itself."""
    parser.add_argument("-d", dest="dataset", required=True, metavar="ID", help="dataset ID or name")
    parser.add_argument("-f", dest="folds", nargs="+", required=True, metavar="FOLD", help="fold(s) of the model")
    parser.add_argument("-p", dest="plans", default="CMCPlans", help="plans of the model (%(default)s)")
    parser.add_argument("-c", dest="configuration", default="3d_fullres", help="configuration (%(default)s)")
    parser.add_argument("-device", choices=("cuda", "cpu", "mps"), default="cuda", help="to predict on (%(default)s)")


def model_folder(args: argparse.Namespace, trainer: str) -> Path:
    """Return the folder of the trained model that the arguments name.

    Raises:
        ValueError: nnUNet_results is not set, the dataset is not known, or a fold is not trained to its end.
    """
    from nnunetv2.paths import nnUNet_results
    from nnunetv2.utilities.file_path_utilities import get_output_folder

    from nnunet_cmc.utils.variables import require_set

    require_set(nnUNet_results)
    try:
        model = Path(get_output_folder(args.dataset, trainer, args.plans, args.configuration))
    except (ValueError, RuntimeError) as error:  # nnU-Net's own text spans several lines
        raise ValueError(f"There is not exactly one dataset {args.dataset}: give its number or whole name.") from error
    for fold in args.folds:
        checkpoint = model / f"fold_{fold}" / "checkpoint_final.pth"
        if not checkpoint.is_file():
            raise ValueError(f"There is no {checkpoint}: train the model to its end, or name another by -tr, -p, -f.")
    return model
