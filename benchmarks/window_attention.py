"""Time and peak memory of SAM-Med3D's image encoder (ViT-B), forward and backward, for three ways to attend.

literal       the published computation: windows padded to 14^3 tokens, every one of them a query
real queries  the same keys, but only the tokens that exist as queries
folded        ours: the padding as a few extra keys

Each runs in a process of its own. Usage: ``python benchmarks/window_attention.py [--sizes 96 128] [--device cpu]``.
"""

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import time
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.window_attention import WindowAttention

SEED = 0


def reference_attention(qkv: Tensor, tables: list[Tensor], queries: tuple[int, int, int]) -> Tensor:
    """Attend within one padded window as published: ``qkv`` (B, S, S, S, 3, heads, c), all S^3 tokens as keys.

    ``queries`` says how many tokens along each axis are queries; returns (B, *queries, heads, c).
    """
    side, c = qkv.shape[1], qkv.shape[-1]
    q, k, v = qkv.permute(4, 0, 5, 1, 2, 3, 6)
    D, H, W = queries
    place = torch.arange(side, device=qkv.device)
    td, th, tw = (table[place[:, None] - place + side - 1] for table in tables)
    rows = q[:, :, :D, :H]
    r1 = torch.einsum("bndhwc,dkc->bndhwk", rows[..., :W, :], td[:D])
    r2 = torch.einsum("bndhwc,hkc->bndhwk", rows, th[:H])
    r3 = torch.einsum("bndhwc,wkc->bndhwk", rows, tw)
    scores = (rows[..., :W, :].flatten(2, 4) * c**-0.5) @ k.flatten(2, 4).transpose(-2, -1)
    scores = scores.unflatten(3, (side, side, side)).unflatten(2, queries)
    # the broadcasts that make the released weights' position bias what it is
    scores = scores + r1[..., None, None, :] + r2[:, :, :, :, None, :, None, :] + r3[:, :, :, :, None, None, :, :]
    out = scores.flatten(5).flatten(2, 4).softmax(-1) @ v.flatten(2, 4)
    return out.unflatten(2, queries).permute(0, 2, 3, 4, 1, 5)


class LiteralAttention(WindowAttention):
    """Any grid, in windows padded with zero tokens, all of which are computed."""

    def forward(self, x: Tensor, *_) -> Tensor:
        grid, tables = x.shape[1:4], [self.rel_pos_d, self.rel_pos_h, self.rel_pos_w]
        side = self.window or max(grid)
        x = F.pad(x, (0, 0, *(p for n in reversed(grid) for p in (0, -n % side))))
        out = torch.empty_like(x)
        for corner in product(*(range(0, n, side) for n in x.shape[1:4])):
            window = (slice(None), *(slice(start, start + side) for start in corner))
            qkv = self.qkv(x[window]).unflatten(-1, (3, self.num_heads, -1))
            out[window] = self.proj(reference_attention(qkv, tables, (side, side, side)).flatten(4))
        return out[:, : grid[0], : grid[1], : grid[2]]


class RealQueriesAttention(WindowAttention):
    """A grid that fits into one window: padding as keys only."""

    def forward(self, x: Tensor, *_) -> Tensor:
        grid, tables = tuple(x.shape[1:4]), [self.rel_pos_d, self.rel_pos_h, self.rel_pos_w]
        side = self.window or max(grid)
        padded = F.pad(x, (0, 0, *(p for n in reversed(grid) for p in (0, side - n))))
        qkv = self.qkv(padded).unflatten(-1, (3, self.num_heads, -1))
        return self.proj(reference_attention(qkv, tables, grid).flatten(4))


VARIANTS = {"literal": LiteralAttention, "real queries": RealQueriesAttention, "folded": WindowAttention}


def measure(variant: str, size: int, device: str, repeats: int) -> dict[str, float]:
    """Measure peak memory, and the shortest of ``repeats`` forward and backward passes of a ``size``^3 input."""
    torch.manual_seed(SEED)
    encoder = SamMed3DEncoder(size)
    for block in encoder.blocks:
        block.attn.__class__ = VARIANTS[variant]
        for table in (block.attn.rel_pos_d, block.attn.rel_pos_h, block.attn.rel_pos_w):
            torch.nn.init.normal_(table, std=0.5)
    encoder.to(device)
    x = torch.randn(1, 1, size, size, size).to(device)
    seconds = []
    for _ in range(repeats):
        encoder.zero_grad()
        start = time.perf_counter()
        output = encoder(x)[-1]
        output.sin().mean().backward()
        gradient = encoder.pos_embed.grad.norm().item()  # also waits for a GPU
        seconds.append(time.perf_counter() - start)
    on_gpu = device == "cuda"
    peak = torch.cuda.max_memory_allocated() if on_gpu else 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"seconds": min(seconds), "gib": peak / 2**30, "output": output.norm().item(), "gradient": gradient}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=[96, 128], help="side of the input in voxels")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--only", choices=VARIANTS, help="measure one variant in this process and print JSON")
    args = parser.parse_args()
    if args.only:
        print(json.dumps(measure(args.only, args.sizes[0], args.device, args.repeats)))
        return
    print(
        f"ViT-B, batch 1, float32, forward and backward; {args.device}, {os.cpu_count()} cores ({platform.machine()}), "
        f"{torch.get_num_threads()} threads; seed {SEED}, best of {args.repeats}; torch {torch.__version__}, "
        f"Python {platform.python_version()}\n"
    )
    print("| input | attention | time (s) | peak memory (GiB) | time, literal = 1 | memory, literal = 1 |")
    print("|---|---|---|---|---|---|")
    for size in args.sizes:
        results = {}
        for variant in VARIANTS:
            command = [sys.executable, __file__, "--only", variant, "--sizes", str(size), "--device", args.device]
            command += ["--repeats", str(args.repeats)]
            now = results[variant] = json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
            literal = results["literal"]
            for what in ("output", "gradient"):
                if abs(now[what] - literal[what]) > 1e-3 * literal[what]:
                    raise RuntimeError(f"{variant}: norm of the {what} {now[what]}, literal {literal[what]}")
            print(
                f"| {size}^3 | {variant} | {now['seconds']:.2f} | {now['gib']:.2f} "
                f"| 1/{literal['seconds'] / now['seconds']:.1f} | 1/{literal['gib'] / now['gib']:.1f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
