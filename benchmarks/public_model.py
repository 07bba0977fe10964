"""CMCPlanner's network against one of the public model's layer sizes: one pair, forward and backward.

    python benchmarks/public_model.py [--side 96] [--repeats 3] [--batch 1]

The public model is re-created from its sizes: a 3-D U-Net of 64 to 512 channels at full resolution, which every
modality goes through in turn, and three 512 -> 512 convolutions of 3^3 voxels for MIA, 40.8 M parameters in all. Both
networks run in turns in one process; the peak of memory above parameters and gradients is taken in a process of its own
each.
"""

import argparse
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import torch
from measure import begin, ceilings, count, interleaved, parser, peak_bytes, print_table, ratio, spread
from torch import Tensor, nn

from nnunet_cmc.networks import CMCNet, UniversalUNetDecoder, UniversalUNetEncoder
from nnunet_cmc.planners.cmc_planner import CMCPlanner

CLASSES = 2
WIDTHS = (64, 128, 256, 512)


class PublicSizes(nn.Module):
    """Layers of the public model's sizes: ``x (B, 2, D, H, W)`` -> logits ``(B, 2, K, D, H, W)``."""

    def __init__(self, widths: tuple[int, ...] = WIDTHS):
        super().__init__()
        deepest = widths[-1]
        self.encoder, self.decoder = UniversalUNetEncoder(widths), UniversalUNetDecoder(widths)
        self.mia = nn.ModuleList(nn.Conv3d(deepest, deepest, 3, padding=1) for _ in range(3))
        self.head = nn.Conv3d(widths[0], CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        maps = [self.encoder(x[:, m : m + 1]) for m in range(2)]
        attention = [conv(pyramid[-1]).sigmoid() for conv, pyramid in zip(self.mia[:2], maps, strict=True)]
        fused = self.mia[2](sum(a * pyramid[-1] for a, pyramid in zip(attention, maps, strict=True)))
        return torch.stack([self.head(self.decoder([*skips, fused + own])[-1]) for *skips, own in maps], 1)


class Ours(CMCNet):
    """What CMCPlanner plans, separate for each modality as in the paper; each is decoded with all fused."""

    def __init__(self, side: int, **changes):
        sizes = {**CMCPlanner.encoder_kwargs, "image_size": side, **changes}
        super().__init__(2, CLASSES, [side] * 3, CMCPlanner.encoder, sizes, list(CMCPlanner.decoder_channels))
        self.separate()

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x, x.new_ones(len(x), 2, 2, dtype=torch.bool)).logits


def build(name: str, args: argparse.Namespace, device: torch.device) -> tuple[nn.Module, Tensor]:
    """Build a network and its input, the gradients already in memory."""
    torch.manual_seed(args.seed)
    small = {"embed_dim": 96, "num_heads": 3, "depth": 2, "global_blocks": [1]} if args.small else {}
    widths = tuple(width // 16 for width in WIDTHS) if args.small else WIDTHS
    network = (Ours(args.side, **small) if name == "CMCPlanner" else PublicSizes(widths)).to(device)
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    return network, torch.randn(args.batch, 2, *[args.side] * 3, device=device)


def step(network: nn.Module, x: Tensor, args: argparse.Namespace) -> None:
    """Compute a forward and a backward pass; on a GPU in mixed precision."""
    with torch.autocast(x.device.type, torch.bfloat16, enabled=args.device == "cuda"):
        logits = network(x)
    logits.float().log_softmax(2)[:, :, 0].mean().neg().backward()


def peak(name: str, args: argparse.Namespace) -> float:
    """Measure the bytes above parameters and gradients; to be called in a process of its own."""
    torch.set_num_threads(args.threads)
    device = torch.device(args.device)
    network, x = build(name, args, device)
    return peak_bytes(lambda: step(network, x, args), device)


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--side", type=int, default=96, help="of the patch in voxels")
    arguments.add_argument("--batch", type=int, default=1, help="pairs")
    arguments.add_argument("--small", action="store_true", help="a few channels instead: for a test of this script")
    args = arguments.parse_args()
    device = begin(args)
    limits = ceilings(device)
    names = ("public model's sizes", "CMCPlanner")
    memory = {}
    for name in names:
        if args.small:
            memory[name] = peak(name, args)
            continue
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            memory[name] = pool.submit(peak, name, args).result()
    built = {name: build(name, args, device) for name in names}
    steps = {name: (lambda pair=pair: step(*pair, args)) for name, pair in built.items()}
    counts = {name: count(function) for name, function in steps.items()}
    seconds = interleaved(steps, args.repeats, device)
    public = names[0]
    print(f"{args.batch} pair(s) of {args.side}^3; {limits.flops / 1e9:.0f} GFLOP/s, {limits.bytes / 1e9:.1f} GB/s")
    print_table(
        ("network", "M parameters", "GFLOP", "GB", "bound (s)", "time (s)", "public = 1", "peak (GiB)", "public = 1"),
        (
            (
                name,
                f"{sum(p.numel() for p in built[name][0].parameters()) / 1e6:.1f}",
                f"{counts[name].flops / 1e9:.0f}",
                f"{counts[name].bytes / 1e9:.1f}",
                f"{limits.seconds(counts[name]):.2f}",
                spread(seconds[name]),
                spread(ratio(seconds[name], seconds[public])),
                f"{memory[name] / 2**30:.2f}",
                f"{memory[name] / memory[public]:.2f}",
            )
            for name in names
        ),
    )


if __name__ == "__main__":
    main()
