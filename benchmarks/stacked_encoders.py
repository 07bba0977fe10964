"""Two encoders one after the other, or as one computation with stacked weights (torch.func): which is faster?

    python benchmarks/stacked_encoders.py [--planner CMCPlannerTiny] [--batch 2] [--side N]

The same numbers come out, which is checked. Stacked convolutions are grouped ones, stacked linear layers are batched
products.
"""

from copy import deepcopy

import torch
from measure import begin, interleaved, parser, print_table, ratio, spread
from torch import Tensor
from torch.func import functional_call, stack_module_state, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel
from train_step import PLANNERS

from nnunet_cmc.networks import build_encoder


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planner", choices=PLANNERS, default="CMCPlannerTiny")
    arguments.add_argument("--batch", type=int, default=2)
    arguments.add_argument("--side", type=int, help="of the patch in voxels; the planner's, if not given")
    args = arguments.parse_args()
    device = begin(args)
    planner = PLANNERS[args.planner]
    side = args.side or planner.patch_size
    encoders = [build_encoder(planner.encoder, **planner.encoder_kwargs).to(device) for _ in range(2)]
    x = torch.randn(2, args.batch, 1, side, side, side, device=device)
    weights, buffers = stack_module_state(encoders)
    skeleton = deepcopy(encoders[0]).to("meta")

    def apart() -> list[Tensor]:
        return [torch.stack(maps) for maps in zip(*(e(part) for e, part in zip(encoders, x, strict=True)), strict=True)]

    def stacked() -> list[Tensor]:
        with sdpa_kernel(SDPBackend.MATH):  # no other passes gradients to a bias under vmap
            return vmap(lambda w, b, part: functional_call(skeleton, (w, b), (part,)))(weights, buffers, x)

    with torch.backends.cudnn.flags(allow_tf32=False), torch.no_grad():
        for ours, plain in zip(stacked(), apart(), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-3)

    def forward_and_backward(run) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            maps = run()
        sum(each.float().sin().mean() for each in maps).backward()

    seconds = interleaved(
        {name: lambda run=run: forward_and_backward(run) for name, run in {"apart": apart, "stacked": stacked}.items()},
        args.repeats,
        device,
    )
    print(f"{args.planner}, batch {args.batch}, {side}^3, forward and backward")
    print_table(
        ("encoders", "time (s)", "apart = 1"),
        ((name, spread(taken), spread(ratio(taken, seconds["apart"]))) for name, taken in seconds.items()),
    )


if __name__ == "__main__":
    main()
