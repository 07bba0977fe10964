"""Operations, traffic and memory of every network, counted on tensors without data: seconds, whatever the size.

    python benchmarks/counts.py [--batch 1] [--modalities 2] [--planners CMCPlanner ...] [--separate]

One row is a part of a network, forward and backward, for patches of the planner's size that hold every modality; the
modalities share the network, or have an encoder and a decoder each (``--separate``, the paper's arrangement). *GB* is
what operators read and write if none is fused with another; *kept* is what a forward pass leaves for the backward pass,
in float32; *operators* are those that are started, which a GPU's host takes its time for. The public model's layer
sizes and nnU-Net's PlainConvUNet for a cube of 96 stand beside.
"""

import argparse
from collections.abc import Callable, Iterator
from unittest.mock import patch

import torch
from measure import count, print_table
from planned import PLANNERS, network_of, side_of, stock_network
from public_model import CLASSES, PublicSizes
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.autograd.graph import saved_tensors_hooks
from torch.utils._pytree import tree_leaves

from nnunet_cmc.networks import CMCNet


def counted(forward: Callable[[], list], parameters: list[nn.Parameter]) -> tuple[float, float, float, float, int]:
    """Count GFLOP of the forward pass and of both, GB of traffic of both, GB kept between, and operators of both."""
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    kept: dict[int, int] = {}

    def note(tensor):
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            kept[storage._cdata] = storage.nbytes()
            alive.append(tensor)  # or its place would be another's
        return tensor

    alive: list = []
    outputs: list = []
    with saved_tensors_hooks(note, lambda tensor: tensor):
        first = count(lambda: outputs.extend(forward()))
    second = count(lambda: torch.autograd.backward(outputs, [torch.ones_like(y) for y in outputs]))
    total = (first.flops + second.flops, first.bytes + second.bytes)
    operators = len(first.operators) + len(second.operators)
    return first.flops / 1e9, total[0] / 1e9, total[1] / 1e9, sum(kept.values()) / 1e9, operators


def parts(network: CMCNet, batch: int, side: int) -> Iterator[tuple[str, Callable[[], list], nn.Module]]:
    """Return name, forward pass and module of each part of one of our networks."""
    modalities = network.num_modalities
    x = torch.empty(batch, 1, *[side] * 3)
    with torch.no_grad():
        computed = network._encode(dict.fromkeys(range(modalities), x))[0]
    maps = [level.detach().requires_grad_() for level in computed]
    features = torch.stack([maps[-1]] * modalities, 1).detach().requires_grad_()
    with unset_fake_temporarily():
        present = torch.ones(batch, modalities, dtype=torch.bool)
    rows = dict.fromkeys(range(modalities), x)
    yield "encoders", lambda: tree_leaves(network._encode(rows)), network.encoders
    yield "MIA and fusion", lambda: [network.mia(features, present)], network.mia
    yield "decoders", lambda: [y for decoder in network.decoders for y in decoder(maps)], network.decoders


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--batch", type=int, default=1)
    arguments.add_argument("--modalities", type=int, default=2)
    arguments.add_argument("--planners", nargs="+", choices=PLANNERS, default=list(PLANNERS))
    arguments.add_argument("--separate", action="store_true", help="an encoder and a decoder of each modality")
    args = arguments.parse_args()
    rows = []
    with (
        patch("torch.nn.init.trunc_normal_", lambda tensor, **_: tensor),
        FakeTensorMode(allow_non_fake_inputs=True),
    ):
        for name in args.planners:
            planner = PLANNERS[name]
            side = side_of(planner)
            with unset_fake_temporarily(), torch.device("meta"):  # torch crashes on copies of tensors without data
                network = network_of(planner, args.modalities, CLASSES, side)
                if args.separate:
                    network.separate()
            sizes = {name: tensor.shape for name, tensor in network.state_dict().items()}
            network.load_state_dict({name: torch.empty(size) for name, size in sizes.items()}, assign=True)
            rows += [(f"{name}, {side}^3", *row) for row in parts(network, args.batch, side)]
        x = torch.empty(args.batch, 2, 96, 96, 96)
        public, stock = PublicSizes(), stock_network(96, CLASSES)
        rows.append(("public model's sizes, 96^3", "all", lambda: [public(x)], public))
        rows.append(("PlainConvUNet, 96^3", "all", lambda: [stock(x)], stock))
        header = ("network", "part", "M parameters", "GFLOP forward", "GFLOP both", "GB both", "kept (GB)", "operators")
        print_table(header, map(_row, rows))


def _row(row: tuple) -> tuple:
    network, part, forward, module = row
    parameters = list(module.parameters())
    size = sum(p.numel() for p in parameters) / 1e6
    *numbers, operators = counted(forward, parameters)
    return network, part, f"{size:.2f}", *(f"{number:.2f}" for number in numbers), operators


if __name__ == "__main__":
    main()
