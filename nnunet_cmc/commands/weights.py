"""``nnunet_cmc weights``: convert pretrained weights for ``nnUNetv2_train -pretrained_weights``."""

import argparse
from pathlib import Path

from nnunet_cmc.commands.arguments import add_configuration, add_dataset, preprocessed_dataset, whole_number
from nnunet_cmc.commands.outcome import Outcome, add_json
from nnunet_cmc.data.format.dataset_json import DatasetDescription

HELP = "convert pretrained weights into a file for nnUNetv2_train -pretrained_weights"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "file", type=Path, help="sam_med3d_turbo.pth, clip_driven_universal_unet.pth or a checkpoint of CMCTrainer"
    )
    add_dataset(parser)
    parser.add_argument("-p", dest="plans", required=True, metavar="PLANS", help="plans, such as CMCPlans")
    add_configuration(parser)
    parser.add_argument("-o", dest="output", type=Path, required=True, metavar="OUT", help="the file to write")
    parser.add_argument(
        "-tr",
        dest="trainer",
        default="CMCTrainer",
        metavar="TRAINER",
        help="trainer of the network to fill (%(default)s)",
    )
    parser.add_argument(
        "--modality", metavar="NAME", help="fill the parts of this modality only, and those that modalities share"
    )
    parser.add_argument("--seed", type=whole_number, default=0, help="seed of weights that FILE lacks (%(default)s)")
    add_json(parser)


def run(args: argparse.Namespace) -> Outcome:
    import torch

    from nnunet_cmc.evaluation.tables import text_table
    from nnunet_cmc.networks.pretrained import load_pretrained
    from nnunet_cmc.trainers.build import build_network
    from nnunet_cmc.trainers.checks import require_supported
    from nnunet_cmc.trainers.cmc_trainer import CMCTrainer
    from nnunet_cmc.trainers.registry import trainer_class
    from nnunet_cmc.utils.checkpoints import load_checkpoint
    from nnunet_cmc.utils.files import save_tensors

    plans, description = _plans_and_dataset(args.dataset, args.plans)
    if not args.output.absolute().parent.is_dir():
        raise ValueError(
            f"There is no folder {args.output.absolute().parent} for {args.output.name}: create it, or give -o another "
            "path."
        )
    if args.output.exists() and args.output.samefile(args.file):
        raise ValueError(f"{args.output} would replace the pretrained weights: give -o another name.")
    trainer = trainer_class(args.trainer)
    if not issubclass(trainer, CMCTrainer):
        raise ValueError(f"{args.trainer} does not train a network of nnunet_cmc: give -tr a trainer that does.")
    checkpoint = load_checkpoint(args.file)
    torch.manual_seed(args.seed)
    require_supported(plans, args.configuration, description, args.trainer)
    net = build_network(trainer, plans, args.configuration, description)
    what, counts = load_pretrained(net, checkpoint, args.file, description.modalities, args.modality)

    save_tensors(args.output, {"network_weights": net.state_dict()})
    print(f"{args.file} is {what}. Tensors of the network:")
    rows = [["", *next(iter(counts.values()))]]
    rows += [[part, *map(str, outcomes.values())] for part, outcomes in counts.items()]
    print(text_table(rows, numbers_from=1))
    print(f"\nTrain with -p {args.plans} -tr {args.trainer} -pretrained_weights {args.output}")
    return Outcome({"checkpoint": what, "tensors": counts}, [args.output])


def _plans_and_dataset(id_or_name: str, plans_name: str) -> tuple[dict, DatasetDescription]:
    from nnunet_cmc.data.format.plans_json import read_plans

    folder = preprocessed_dataset(id_or_name)
    file = folder / f"{plans_name}.json"
    if not file.is_file():
        raise ValueError(
            f"There is no {file}: plan first, such as with nnUNetv2_plan_and_preprocess -pl CMCPlanner for CMCPlans."
        )
    return read_plans(file), DatasetDescription.read(folder / "dataset.json")
