"""What the terms of a recipe's loss send between ranks in a step, forward and backward, counted in one process.

    python benchmarks/messages.py [--trainer CMCTrainer] [--pairs 4] [--ranks 4] [--classes 14] [--sides 32 48]

Random predictions of registered pairs, half as many unlabelled ones as labelled, stand for those of all ranks. *MB* is
the size of the tensors that are summed over the ranks, of each of them; gathered predictions would be what stands
beside.
"""

import argparse

import torch
import torch.distributed as dist
from measure import print_table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.recipes import RECIPES
from nnunet_cmc.trainers.terms import Setting

MODALITIES, CHANNELS = 2, 320


class Sent(TorchDispatchMode):
    """Counts the bytes of tensors that collective operations are given."""

    def __init__(self):
        super().__init__()
        self.bytes = self.messages = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func.namespace == "c10d":
            self.bytes += sum(x.nbytes for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor))
            self.messages += 1
        return func(*args, **(kwargs or {}))


def registered_pairs(labelled: int, unlabelled: int, classes: int, side: int) -> tuple[CMCOutput, Batch]:
    """Make random predictions of so many rows, and their batch."""
    rows, cube = labelled + unlabelled, [side] * 3
    logits = torch.randn(rows, MODALITIES, classes, *cube, requires_grad=True)
    features = torch.randn(rows, MODALITIES, CHANNELS, 4, 4, 4, requires_grad=True)
    present = torch.ones(rows, MODALITIES, dtype=torch.bool)
    batch = Batch(
        torch.zeros(rows, MODALITIES, *cube), torch.randint(classes, (labelled, 1, *cube)),
        torch.ones(rows, MODALITIES, MODALITIES, dtype=torch.bool), torch.arange(rows)[:, None].expand(-1, MODALITIES),
        torch.rand(rows, 3, 4, 4, 4), pseudo_targets=torch.randint(classes, (unlabelled, 1, *cube)),
    )  # fmt: skip
    return CMCOutput(logits, features, present), batch


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--trainer", default="CMCTrainer", choices=RECIPES)
    arguments.add_argument("--pairs", type=int, default=4, help="labelled ones of a rank (%(default)s)")
    arguments.add_argument("--ranks", type=int, default=4)
    arguments.add_argument("--classes", type=int, default=14, help="with background (%(default)s)")
    arguments.add_argument("--sides", type=int, nargs="+", default=[32, 48], help="of the patch in voxels")
    args = arguments.parse_args()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    labelled = args.pairs * args.ranks
    rows = []
    for side in args.sides:
        output, batch = registered_pairs(labelled, labelled // 2, args.classes, side)
        gathered = f"{1e-6 * output.logits.nbytes:.0f}"
        step = Sent()
        for term in RECIPES[args.trainer].terms:
            built = term.build(Setting(MODALITIES, args.classes, CHANNELS, batch_dice=True))
            with Sent() as sent:
                built(output, batch).backward()
            step.messages += sent.messages
            step.bytes += sent.bytes
            rows.append((term.name, f"{side}^3", sent.messages, f"{1e-6 * sent.bytes:.3g}", gathered))
        rows.append(("all", f"{side}^3", step.messages, f"{1e-6 * step.bytes:.3g}", gathered))
    dist.destroy_process_group()
    print(f"{args.trainer}, {args.ranks} ranks of {args.pairs} labelled pairs, {args.classes} classes")
    print_table(("term", "patch", "messages", "MB", "predictions (MB)"), rows)


if __name__ == "__main__":
    main()
