"""``nnunet_cmc train``: nnU-Net's training on several processes or machines, under torchrun."""

import argparse
import os
import sys

HELP = "train on several processes or machines, under torchrun"

USAGE = """\
Run nnUNetv2_train, with its arguments, in every process that torchrun starts:
  torchrun --nproc-per-node 2 -m nnunet_cmc train 502 3d_fullres 0 -tr CMCTrainer -p CMCNNUNetPlans --c
and, on several machines that share nnU-Net's folders, the same on each (without the variable,
restarted workers cannot find each other, since torchrun keeps the addresses of crashed ones):
  export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
  torchrun --nnodes 2 --nproc-per-node 4 --rdzv-backend c10d --rdzv-endpoint HOST:29400 --max-restarts 3 \\
      -m nnunet_cmc train 502 3d_fullres 0 -tr CMCTrainer -p CMCNNUNetPlans --c
The processes share the batch of the plans. With --c a restarted training resumes from its last checkpoint, or starts
anew if there is none. A single process needs no torchrun: use nnUNetv2_train.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = USAGE
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument(
        "arguments",
        nargs=argparse.REMAINDER,
        metavar="ARGUMENTS",
        help="arguments of nnUNetv2_train, except -num_gpus",
    )


def run(args: argparse.Namespace) -> None:
    if "LOCAL_RANK" not in os.environ:
        raise ValueError("nnunet_cmc train must be started by torchrun: for one process, use nnUNetv2_train.")
    known = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    known.add_argument("-device", default="cuda")
    known.add_argument("-num_gpus")
    known.add_argument("-p")  # else argparse takes it for the beginning of the next
    known.add_argument("-pretrained_weights")
    found, _ = known.parse_known_args(args.arguments)
    if found.num_gpus is not None:
        raise ValueError(
            "-num_gpus belongs to nnUNetv2_train: omit it, and give the number of GPUs as torchrun's --nproc-per-node."
        )

    import torch
    import torch.distributed as dist
    from nnunetv2.run.run_training import run_training_entry

    from nnunet_cmc.utils.checkpoints import load_checkpoint
    from nnunet_cmc.utils.devices import require_device

    if found.pretrained_weights is not None:
        load_checkpoint(found.pretrained_weights)  # refuse a file that would execute code when nnU-Net unpickles it
    require_device(torch.device(found.device))
    if found.device == "cuda":
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    dist.init_process_group("nccl" if found.device == "cuda" else "gloo")
    sys.argv = ["nnUNetv2_train", *args.arguments]
    try:
        run_training_entry()
    finally:
        dist.destroy_process_group()
