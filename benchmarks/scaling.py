"""How a training step grows: with patch, batch, modalities, processes and cases. Prints a table, draws a figure.

    python benchmarks/scaling.py [--planner CMCPlannerTiny] [--output docs/scaling.svg] [--only patch batch ...]

A step is a forward and a backward pass of the planner's network on labelled rows that hold every modality. Patch, batch
and modalities change one at a time. The processes of ``ranks`` share a batch, and sum their gradients. For ``cases``
no step is taken: it is the time to index so many unpaired cases (half of each modality), and that to draw a pair.
"""

import argparse
import tempfile
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from types import SimpleNamespace

import torch
import torch.distributed as dist
from measure import begin, count, interleaved, parser, print_table, spread
from planned import PLANNERS, network_of
from torch.nn.parallel import DistributedDataParallel

from nnunet_cmc.data.format.dataset_json import DatasetDescription
from nnunet_cmc.data.loading.sampling import CaseSampler

AXES = ("patch", "batch", "modalities", "ranks", "cases")
CLASSES = 5


class Step:
    """A network of the planner's and its batch; called, it runs forward and backward."""

    def __init__(self, args: argparse.Namespace, device: torch.device, *, side: int, batch: int, modalities: int):
        self.network: torch.nn.Module = network_of(PLANNERS[args.planner], modalities, CLASSES, side).to(device)
        self.x = torch.randn(batch, modalities, *[side] * 3, device=device)
        self.fusion = torch.ones(batch, modalities, modalities, dtype=torch.bool, device=device)

    def __call__(self) -> None:
        self.network(self.x, self.fusion).logits.log_softmax(2)[:, :, 0].mean().neg().backward()


def of_ranks(args: argparse.Namespace, ranks: int, side: int, batch: int) -> list[float]:
    """Return the seconds of rank 0 for steps of ``ranks`` processes that share a batch."""
    with tempfile.TemporaryDirectory() as folder, ProcessPoolExecutor(ranks, get_context("spawn")) as pool:
        store = f"file://{folder}/store"
        runs = [pool.submit(rank_steps, args, rank, ranks, store, side, batch // ranks) for rank in range(ranks)]
        return runs[0].result()


def rank_steps(args: argparse.Namespace, rank: int, ranks: int, store: str, side: int, batch: int) -> list[float]:
    torch.set_num_threads(args.threads)
    device = torch.device(args.device, rank) if args.device == "cuda" else torch.device("cpu")
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", store, rank=rank, world_size=ranks)
    step = Step(args, device, side=side, batch=batch, modalities=2)
    step.network = DistributedDataParallel(step.network)
    seconds = interleaved({"step": step}, args.repeats, device)["step"]
    dist.destroy_process_group()
    return seconds


def indexed(cases: int) -> CaseSampler:
    """Make a stream of so many scans, in turns of either modality, of half as many subjects."""
    names = [f"case_{i:05d}" for i in range(cases)]
    present = {case: (i % 2,) for i, case in enumerate(names)}
    subjects = {case: str(i // 2) for i, case in enumerate(names)}
    description = DatasetDescription(("CT", "MR"), ("CT", "MR"), {"background": 0}, ".nii.gz", present, subjects)
    return CaseSampler(SimpleNamespace(identifiers=names), description)


def draw(stream: CaseSampler, pairs: int = 100) -> None:
    for _ in range(pairs):
        stream.draw_partner(stream.draw())


def measure(axis: str, args: argparse.Namespace, device: torch.device) -> list[tuple[int, list[float], str]]:
    """Return (value, seconds, note) for every value of an axis."""
    base = {"side": args.side, "batch": 2, "modalities": 2}
    if axis == "ranks":
        return [(n, of_ranks(args, n, args.side, 2), f"{2 // n} pair(s) a process") for n in (1, 2)]
    if axis == "cases":
        points = []
        for n in (10, 100, 1000):
            seconds = interleaved({"index": partial(indexed, n), "draw": partial(draw, indexed(n))}, args.repeats)
            points.append((n, seconds["index"], f"{10 * median(seconds['draw']):.2g} ms a pair"))
        return points
    name = "side" if axis == "patch" else axis
    values = {"patch": [args.side // 2, args.side, 3 * args.side // 2], "batch": [1, 2, 4], "modalities": [2, 3, 4]}
    steps = {str(n): Step(args, device, **{**base, name: n}) for n in values[axis]}
    notes = {n: f"{count(step).flops / 1e9:.1f} GFLOP" for n, step in steps.items()}
    seconds = interleaved(steps, args.repeats, device)
    return [(int(n), seconds[n], notes[n]) for n in steps]


def draw_figure(points: dict[str, list[tuple[int, list[float], str]]], title: str, output: Path) -> None:
    """Draw a panel for each axis, both scales logarithmic; dashed is what would be proportional."""
    from matplotlib.figure import Figure

    figure = Figure((2.6 * len(points), 2.6), layout="constrained")
    for place, (axis, of_axis) in zip(figure.subplots(1, len(points), squeeze=False)[0], points.items(), strict=True):
        x, y = [n for n, _, _ in of_axis], [median(seconds) for _, seconds, _ in of_axis]
        low, high = ([edge(seconds) for _, seconds, _ in of_axis] for edge in (min, max))
        power = {"patch": 3, "ranks": -1}.get(axis, 1)
        place.fill_between(x, low, high, alpha=0.3)
        place.plot(x, y, "o-")
        place.plot(x, [y[0] * (n / x[0]) ** power for n in x], "--", color="grey", linewidth=1)
        place.set(xscale="log", yscale="log", xlabel=axis, ylabel="seconds")
        place.set_xticks(x, [str(n) for n in x])
        place.minorticks_off()
    figure.suptitle(title, fontsize="small")
    figure.savefig(output, metadata={"Date": None})


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planner", choices=PLANNERS, default="CMCPlannerTiny")
    arguments.add_argument("--side", type=int, default=32, help="of the patch in voxels; also half of it and 1.5 times")
    arguments.add_argument("--only", nargs="+", choices=AXES, default=AXES)
    arguments.add_argument("--output", type=Path, help="file for the figure (SVG or PNG)")
    args = arguments.parse_args()
    device = begin(args)
    points = {axis: measure(axis, args, device) for axis in args.only}
    print(f"{args.planner}, {args.side}^3, 2 pairs, 2 modalities where nothing else is said")
    print_table(
        ("axis", "value", "time (s)", "first = 1", ""),
        (
            (axis, n, spread(seconds), f"{median(seconds) / median(of_axis[0][1]):.2f}", note)
            for axis, of_axis in points.items()
            for n, seconds, note in of_axis
        ),
    )
    if args.output:
        draw_figure(points, f"{args.planner}, {args.side}^3: a step, forward and backward", args.output)


if __name__ == "__main__":
    main()
