"""A case's sliding window: one modality against two, our planners against a stock PlainConvUNet of the same patch.

    python benchmarks/prediction.py [--planners CMCPlanner ...] [--side N] [--windows 2] [--mirroring]

Networks with random weights see a preprocessed case of noise, in turns: ours two windows at a time, as in
``nnunet_cmc.Predictor``, and one, as in ``nnUNetv2_predict``, which PlainConvUNet has, too. Logits are blended in
float16 on the case's grid: memory is that of the result and of the windows. *peak* is above what was there.
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


def predicts(network: nn.Module, plans: dict, dataset_json: dict, predictor: nnUNetPredictor) -> Callable:
    """The predictor's function from a preprocessed case to its logits, with the windows of these plans."""
    manager = PlansManager(plans)
    configuration = manager.get_configuration(CONFIGURATION)
    weights = [network.state_dict()]
    predictor.manual_initialization(network, manager, configuration, weights, dataset_json, "CMCTrainer", (2,))
    return predictor.predict_logits_from_preprocessed_data


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    arguments.add_argument("--side", type=int, help="of the patch in voxels; the planner's, if not given")
    arguments.add_argument("--trainer", default="CMCTrainer", help="whose network it is (%(default)s)")
    arguments.add_argument("--windows", type=int, default=2, help="of a case, in a row")
    arguments.add_argument("--mirroring", action="store_true", help="predict left and right exchanged, too")
    args = arguments.parse_args()
    device = begin(args)
    table = []
    for name in args.planners:
        with tempfile.TemporaryDirectory() as root, quiet():
            workspace = Workspace(root, seed=args.seed)
            side = args.side or side_of(PLANNERS[name])
            # so fine that nnU-Net's planner finds scans that are larger than the cube
            plans = workspace.plan(PLANNERS[name], spacing=(100 / side,) * 3, side=side)
        manager = PlansManager(plans).get_configuration(CONFIGURATION)
        classes = len(workspace.dataset_json["labels"])
        ours = trainer_class(args.trainer).build_network_architecture(None, manager, 2, classes, False)
        stock = stock_network(side, classes)
        both = torch.randn(2, side, side, side + (args.windows - 1) * side // 2)
        one = both.clone()
        one[1] = 0
        steps = {}
        with quiet():
            for what, network, case, predictor in (
                ("both", ours, both, WindowPredictor),
                ("one modality", ours, one, WindowPredictor),
                ("both, a window at a time", ours, both, nnUNetPredictor),
                ("PlainConvUNet", stock, both, nnUNetPredictor),
            ):
                on_gpu = device.type == "cuda"
                made = predictor(0.5, True, args.mirroring, on_gpu, device, allow_tqdm=False)
                steps[what] = partial(predicts(network, plans, workspace.dataset_json, made), case)
        with quiet():
            seconds = interleaved(steps, args.repeats, device)
            peaks = {what: peak_bytes(step, device) for what, step in steps.items()}
        for what, taken in seconds.items():
            table.append(
                (
                    f"{name}, {side}^3", what, spread(taken), spread(ratio(taken, seconds["both"])),
                    spread(ratio(taken, seconds["PlainConvUNet"])), f"{peaks[what] / 2**20:.0f}",
                )
            )  # fmt: skip
    header = ("planner", "input", "time (s)", "both = 1", "PlainConvUNet = 1", "peak (MiB)")
    print(f"{args.windows} window(s), {'with' if args.mirroring else 'without'} mirroring")
    print_table(header, table)


if __name__ == "__main__":
    main()
