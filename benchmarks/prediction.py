"""A case's sliding window: one modality and two, against nnU-Net's own network of one channel of the same plan.

    python benchmarks/prediction.py [--planner CMCPlannerNNUNet] [--side N] [--windows 4]

Networks with random weights see a preprocessed case of noise, in turns, without mirroring and mirrored along one axis:
ours two windows at a time, as ``nnUNetv2_predict`` and ``nnunet_cmc.Predictor`` do, and one at a time; nnU-Net's so,
too, since its own predictor gives a window at a time, for which torch has slow convolutions on a CPU. *peak* is the
memory above what was there.
"""

import tempfile
from collections.abc import Callable
from functools import partial

import torch
from measure import begin, interleaved, parser, peak_bytes, print_table, quiet, ratio, spread
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.plans_handling.plans_handler import PlansManager
from planned import PLANNERS, side_of, stock_network
from torch import nn
from workspace import CONFIGURATION, Workspace

from nnunet_cmc.inference.windows import WindowPredictor
from nnunet_cmc.trainers.registry import trainer_class


class StockPredictor(nnUNetPredictor):
    """nnU-Net's own predictor, of which the package makes none of its own."""


def predicts(network: nn.Module, plans: dict, dataset_json: dict, predictor: nnUNetPredictor) -> Callable:
    """Return the predictor's function from a preprocessed case to its logits, with the windows of these plans."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    weights = [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, weights, dataset_json, "CMCTrainer", (2,))
    return predictor.predict_logits_from_preprocessed_data


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planner", choices=PLANNERS, default="CMCPlannerNNUNet")
    arguments.add_argument("--side", type=int, help="of the patch in voxels; the planner's, if not given")
    arguments.add_argument("--trainer", default="CMCTrainer", help="whose network it is (%(default)s)")
    arguments.add_argument("--windows", type=int, default=4, help="of a case, in a row")
    args = arguments.parse_args()
    device = begin(args)
    with tempfile.TemporaryDirectory() as root, quiet():
        workspace = Workspace(root, seed=args.seed)
        side = args.side or side_of(PLANNERS[args.planner])
        # so fine that nnU-Net's planner finds scans that are larger than the cube
        plans = workspace.plan(PLANNERS[args.planner], spacing=(100 / side,) * 3, side=side)
    manager = PlansManager(plans).get_configuration(CONFIGURATION)
    classes = len(workspace.dataset_json["labels"])
    ours = trainer_class(args.trainer).build_network_architecture(None, manager, 2, classes, False)
    stock = stock_network(side, classes, channels=1)
    both = torch.randn(2, side, side, side + (args.windows - 1) * side // 2)
    one = both * torch.tensor([1.0, 0.0])[:, None, None, None]
    print(f"{args.planner}, {args.windows} windows of {side}^3; nnU-Net's network of one channel is 1")
    for mirroring in (False, True):
        steps = {}
        for what, network, case, predictor in (
            ("nnU-Net", stock, both[:1], WindowPredictor),
            ("one modality", ours, one, WindowPredictor),
            ("both", ours, both, WindowPredictor),
            ("nnU-Net, a window at a time", stock, both[:1], StockPredictor),
            ("both, a window at a time", ours, both, StockPredictor),
        ):
            with quiet():
                made = predictor(0.5, True, mirroring, device.type == "cuda", device, allow_tqdm=False)
                steps[what] = partial(predicts(network, plans, workspace.dataset_json, made), case)
        with quiet():
            seconds = interleaved(steps, args.repeats, device)
            peaks = {what: peak_bytes(step, device) for what, step in steps.items()}
        print_table(
            ("mirrored" if mirroring else "not mirrored", "time (s)", "nnU-Net = 1", "peak (MiB)"),
            [
                (what, spread(taken), spread(ratio(taken, seconds["nnU-Net"])), f"{peaks[what] / 2**20:.0f}")
                for what, taken in seconds.items()
            ],
        )


if __name__ == "__main__":
    main()
