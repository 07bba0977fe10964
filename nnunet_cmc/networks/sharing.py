"""One encoder for all modalities, of which each modality has its own first stage, norms and adapters.

All other weights are shared: with few labelled scans every scan of any modality trains them, and they cost once.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.adapter import Adapter
from nnunet_cmc.networks.encoders import Encoder

Rows = dict[int, int]  # modality -> number of its rows in the batch at hand, which lie one modality after the other


class OwnModule(nn.Module):
    """A module of each modality, applied to the rows of that modality; at first all are alike."""

    def __init__(self, module: nn.Module, num_modalities: int, rows: Rows):
        super().__init__()
        self.copies = nn.ModuleList([module, *(deepcopy(module) for _ in range(num_modalities - 1))])
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x (B, ...)``."""
        parts = x.split(list(self.rows.values()))
        return torch.cat([self.copies[m](part) for m, part in zip(self.rows, parts, strict=True)])


class OwnInstanceNorm(OwnModule):
    """``nn.InstanceNorm3d`` of each modality, which differ in scale and shift: one operator for all rows."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (B, C, D, H, W)``."""
        norms = [norm for m, n in self.rows.items() for norm in [cast(nn.InstanceNorm3d, self.copies[m])] * n]
        weight, bias = torch.cat([norm.weight for norm in norms]), torch.cat([norm.bias for norm in norms])
        # torch computes instance norm like this, too, with one scale for all rows
        flat = x.reshape(1, -1, *x.shape[2:])
        return nn.functional.batch_norm(flat, None, None, weight, bias, training=True, eps=norms[0].eps).view_as(x)


class SharedEncoder(nn.Module):
    """An encoder of one modality, shared by M of them but for its first stage, norms and adapters.

    Args:
        encoder: of one modality; its attribute ``own`` names the parts of the first stage.
        num_modalities: M.
    """

    def __init__(self, encoder: Encoder, num_modalities: int):
        super().__init__()
        self.rows: Rows = {}
        self.encoder = encoder
        own = [encoder.get_submodule(name) for name in encoder.own]
        within = {module for stage in own for module in stage.modules()}.difference(own)
        replaced: dict[nn.Module, OwnModule] = {}  # nnU-Net's blocks hold a module under several names
        for name, module in list(encoder.named_modules(remove_duplicate=False)):
            norm = isinstance(module, nn.InstanceNorm3d)
            if module in within or not (
                norm or module in own or isinstance(module, nn.LayerNorm | nn.BatchNorm3d | Adapter)
            ):
                continue
            if module not in replaced:
                replaced[module] = (OwnInstanceNorm if norm else OwnModule)(module, num_modalities, self.rows)
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, replaced[module])

    def forward(self, parts: Mapping[int, Tensor]) -> dict[int, list[Tensor]]:
        """Encode the scans ``(n, 1, D, H, W)`` of each modality as one batch, into each modality's maps."""
        self.rows.clear()
        self.rows.update({m: len(part) for m, part in parts.items()})
        maps = [level.split(list(self.rows.values())) for level in self.encoder(torch.cat(list(parts.values())))]
        return {m: [level[i] for level in maps] for i, m in enumerate(parts)}

    def spread(self, states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return entries of this module's state dict that make it compute what encoders of one modality compute.

        Args:
            states: modality -> state dict of its encoder; what is shared is taken from the first.
        """
        modules = self.encoder.named_modules(remove_duplicate=False)
        own = [f"{name}." for name, module in modules if isinstance(module, OwnModule)]
        spread: dict[str, Tensor] = {}
        for m, state in states.items():
            for key, tensor in state.items():
                prefix = next((prefix for prefix in own if key.startswith(prefix)), None)
                if prefix is None:
                    spread.setdefault(f"encoder.{key}", tensor)
                else:
                    spread[f"encoder.{prefix}copies.{m}.{key.removeprefix(prefix)}"] = tensor
        return spread
