"""Two encoders one after the other, or as one computation with stacked weights: which is faster?

    python benchmarks/stacked_encoders.py [--planner CMCPlannerTiny] [--batch 2] [--side N]

The same numbers come out, which is checked. Stacked convolutions are grouped ones, stacked linear layers are batched
products.
"""

from itertools import chain

import torch
from measure import begin, interleaved, parser, print_table, ratio, spread
from planned import PLANNERS, encoder_of, side_of
from torch import Tensor

from nnunet_cmc.networks import build_encoder
from nnunet_cmc.networks.stacked import stacked


def main() -> None:
    arguments = parser(__doc__)
    arguments.add_argument("--planner", choices=PLANNERS, default="CMCPlannerTiny")
    arguments.add_argument("--batch", type=int, default=2)
    arguments.add_argument("--side", type=int, help="of the patch in voxels; the planner's, if not given")
    args = arguments.parse_args()
    device = begin(args)
    planner = PLANNERS[args.planner]
    side = args.side or side_of(planner)
    name, sizes = encoder_of(planner, side)
    encoders = [build_encoder(name, **sizes).to(device) for _ in range(2)]
    x = torch.randn(2, args.batch, 1, side, side, side, device=device)

    def apart() -> list[list[Tensor]]:
        return [encoder(part) for encoder, part in zip(encoders, x, strict=True)]

    def together() -> list[list[Tensor]]:
        return stacked(encoders, list(x))

    with torch.backends.cudnn.flags(allow_tf32=False), torch.no_grad():
        for ours, plain in zip(chain(*together()), chain(*apart()), strict=True):
            torch.testing.assert_close(ours, plain, atol=1e-3, rtol=1e-3)

    def forward_and_backward(run) -> None:
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            maps = run()
        sum(each.float().sin().mean() for each in chain(*maps)).backward()

    steps = {"apart": lambda: forward_and_backward(apart), "stacked": lambda: forward_and_backward(together)}
    seconds = interleaved(steps, args.repeats, device)
    print(f"{args.planner}, batch {args.batch}, {side}^3, forward and backward")
    print_table(
        ("encoders", "time (s)", "apart = 1"),
        ((name, spread(taken), spread(ratio(taken, seconds["apart"]))) for name, taken in seconds.items()),
    )


if __name__ == "__main__":
    main()
