"""What the network that all modalities share costs, beside nnU-Net's own of one channel on as many rows.

    python benchmarks/shared_network.py [--rows 4] [--side 64] [--device cpu]

A row is a patch that is predicted. Training is forward and backward under deep supervision; prediction is of windows,
of one modality and of two. Both networks have nnU-Net's stages for the cube.
"""

from collections.abc import Callable

import torch
from measure import begin, interleaved, parser, print_table, ratio, spread
from planned import network_of, stock_network
from torch import Tensor, nn

from nnunet_cmc.data.loading.fusion import Alone, FusedAndPart
from nnunet_cmc.networks import CMCNet
from nnunet_cmc.networks.changes import SuperviseDeep
from nnunet_cmc.planners.nnunet import CMCPlannerNNUNet

CLASSES = 3


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--rows", type=int, default=4, help="predicted patches, an even number (%(default)s)")
    arguments.add_argument("--side", type=int, default=64, help="of the patch in voxels (%(default)s)")
    args = arguments.parse_args()
    device = begin(args)
    ours = network_of(CMCPlannerNNUNet, 2, CLASSES, args.side).to(device)
    SuperviseDeep()(ours)
    stock = stock_network(args.side, CLASSES, channels=1, deep_supervision=True).to(device)
    print(f"{args.rows} rows of {args.side}^3 voxels; nnU-Net's network of one channel is 1")
    training = training_steps(ours, stock, args.rows, args.side, device)
    show("forward and backward", training, args.repeats, device)
    show("prediction", prediction_steps(ours.eval(), stock.eval(), args.rows, args.side, device), args.repeats, device)


def training_steps(ours: CMCNet, stock: nn.Module, rows: int, side: int, device: torch.device) -> dict[str, Callable]:
    """Return forward and backward passes of as many rows each, nnU-Net's first."""
    registered = torch.randn(rows // 2, 2, side, side, side, device=device)
    unpaired = torch.zeros(rows, 2, side, side, side, device=device)
    for row in range(rows):
        unpaired[row, row % 2] = registered[row // 2, row % 2]
    one_channel = unpaired.sum(1, keepdim=True)
    both = torch.stack([FusedAndPart()((0, 1), 2) for _ in range(rows // 2)]).to(device)
    alone = torch.stack([Alone()((0, 1), 2)] * rows).to(device)

    def step(outputs: Callable[[], list[Tensor]]) -> Callable[[], None]:
        def run() -> None:
            with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
                predicted = outputs()
            sum(each.float().sum() for each in predicted).backward()

        return run

    def of_ours(x: Tensor, fusion: Tensor) -> Callable[[], None]:
        def outputs() -> list[Tensor]:
            output = ours(x, fusion)
            return [output.logits, *output.deep]

        return step(outputs)

    return {
        "nnU-Net": step(lambda: stock(one_channel)),
        "unpaired scans": of_ours(unpaired, alone),
        "registered scans, each modality alone": of_ours(registered, alone[: rows // 2]),
        "registered scans, fused and one alone": of_ours(registered, both),
    }


def prediction_steps(ours: CMCNet, stock: nn.Module, rows: int, side: int, device: torch.device) -> dict[str, Callable]:
    """Return predictions of as many windows each, nnU-Net's first."""
    both = torch.randn(rows, 2, side, side, side, device=device)
    one = both * torch.tensor([1.0, 0.0], device=device)[:, None, None, None]

    def predict(network: nn.Module, x: Tensor) -> Callable[[], None]:
        def run() -> None:
            with torch.inference_mode(), torch.autocast(device.type, torch.float16, enabled=device.type == "cuda"):
                network(x)

        return run

    return {
        "nnU-Net": predict(stock, both[:, :1]),
        "one modality": predict(ours, one),
        "both modalities, fused": predict(ours, both),
    }


def show(title: str, steps: dict[str, Callable], repeats: int, device: torch.device) -> None:
    """Print times, and ratios to the first."""
    seconds = interleaved(steps, repeats, device)
    plain = seconds["nnU-Net"]
    print()
    rows = ((name, spread(taken), spread(ratio(taken, plain))) for name, taken in seconds.items())
    print_table((title, "time (s)", "nnU-Net = 1"), rows)


if __name__ == "__main__":
    main()
