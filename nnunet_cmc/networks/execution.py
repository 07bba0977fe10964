"""How the parts of a network are computed, which changes time and memory, and results by rounding at most."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.checkpoint import checkpoint

from nnunet_cmc.networks.compiled import any_number_of_rows, first_of_two, is_compiled
from nnunet_cmc.networks.stacked import stacked

# Channels x D x H up to which torch takes a slow convolution for a batch of one on the CPU (use_mkldnn of ATen's
# Convolution.cpp). Deeper maps of any network are that small, but take little of its time.
SLOW = 20480


@dataclass
class Execution:
    """How the encoders and decoders of a network are computed.

    Attributes:
        checkpointing: whether training recomputes the activations of encoders and decoders in the backward pass, which
            costs a second forward pass and saves most of the memory.
        stacked_on: device on which separate encoders run as one computation with stacked weights: for a ViT's many
            small operators a GPU is limited by the host that launches them. It does not help a CPU, nor convolutions,
            which would become grouped ones.
        channels_last_on: device on which the channels are the last axis in memory: a step of nnU-Net's network takes a
            tenth less time so on a CPU, but a prediction does not. Of other networks, and on a GPU, it was not
            measured.
    """

    checkpointing: bool
    stacked_on: str | None
    channels_last_on: str | None

    @classmethod
    def of(cls, encoder: str, checkpointing: bool) -> "Execution":
        """Return how a network with an ``encoder`` of this name is computed."""
        return cls(checkpointing, "cuda" if encoder == "sam_med3d" else None, "cpu" if encoder == "unet" else None)

    def run(self, part: nn.Module, *inputs):
        """Compute ``part(*inputs)``."""
        if is_compiled(part):
            inputs = tree_map(Tensor.contiguous, inputs)  # a graph is of one order in memory
            batches = tree_leaves(inputs)
            if len(batches[0]) == 1:
                return first_of_two(partial(self.run, part), *inputs)
            any_number_of_rows(*batches)
        if self._recomputes:
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)

    def run_each(self, modules: Sequence[nn.Module], inputs: Mapping[int, Tensor]) -> dict[int, list[Tensor]]:
        """Compute ``{m: modules[m](x) for m, x in inputs.items()}``, of modules of one architecture."""
        alike = len(inputs) > 1 and len({x.shape for x in inputs.values()}) == 1
        if alike and not self._recomputes and next(iter(inputs.values())).device.type == self.stacked_on:
            return dict(zip(inputs, stacked([modules[m] for m in inputs], list(inputs.values())), strict=True))
        return {m: self.run(modules[m], x) for m, x in inputs.items()}

    def compile(self, parts: Sequence[nn.Module], **options) -> None:
        """Compile each part as a whole graph for any number of rows; ``options`` are those of ``torch.compile``."""
        self.stacked_on = None  # a compiled encoder is few operators already
        for part in parts:
            part.compile(fullgraph=True, **options)

    def order(self, parameters: Iterable[nn.Parameter], device: torch.device) -> None:
        """Order convolutions' kernels in memory as training is fastest on ``device``."""
        if device.type == self.channels_last_on:
            for kernel in (parameter for parameter in parameters if parameter.ndim == 5):
                kernel.data = kernel.data.contiguous(memory_format=torch.channels_last_3d)

    @property
    def _recomputes(self) -> bool:
        return self.checkpointing and torch.is_grad_enabled()


def is_faster_doubled(x: Tensor, width: int) -> bool:
    """Tell whether a batch of two takes less time than ``x (B, M, D, H, W)``; ``width`` is of its first maps."""
    return len(x) == 1 and x.device.type == "cpu" and width * x[0, 0, :, :, 0].numel() <= SLOW
