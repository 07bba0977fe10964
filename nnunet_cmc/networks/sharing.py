"""One encoder for all modalities, with a first stage, norms and adapters for each modality.

All other weights are shared: scans of every modality train them, which helps with few labels, and are stored once.
"""

from collections.abc import Mapping
from copy import deepcopy
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._pytree import tree_leaves

from nnunet_cmc.networks.adapter import Adapter
from nnunet_cmc.networks.blocks import instance_norm
from nnunet_cmc.networks.compiled import any_number_of_rows, first_of_two, is_compiled
from nnunet_cmc.networks.encoders import Encoder
from nnunet_cmc.networks.sam_med3d import ChannelNorm

Rows = dict[int, int]  # modality -> number of its rows in the current batch, which is ordered by modality


class OwnModule(nn.Module):
    """A module for each modality, applied to its rows; all copies start equal."""

    def __init__(self, module: nn.Module, num_modalities: int, rows: Rows):
        super().__init__()
        self.copies = nn.ModuleList([module, *(deepcopy(module) for _ in range(num_modalities - 1))])
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        """Apply to ``x (B, ...)``."""
        parts = x.split(list(self.rows.values()))
        return torch.cat([self.copies[m](part) for m, part in zip(self.rows, parts, strict=True)])


class OwnByRow(OwnModule):
    """A module for each modality, computed for all rows at once, each row with the parameters of its modality.

    ``chosen`` are these parameters, each ``(B, ...)``, set by :class:`SharedEncoder` for the current batch. So the
    operators are the same for any modalities and any number of rows.
    """

    def __init__(self, module: nn.Module, num_modalities: int, rows: Rows):
        super().__init__(module, num_modalities, rows)
        self.chosen: dict[str, Tensor] = {}


class OwnInstanceNorm(OwnByRow):
    """``nn.InstanceNorm3d`` with a scale and shift for each modality."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (B, C, D, H, W)``."""
        weight, bias = (self.chosen[name].flatten() for name in ("weight", "bias"))
        return instance_norm(x, weight, bias, cast(nn.InstanceNorm3d, self.copies[0]).eps)


class OwnLayerNorm(OwnByRow):
    """``nn.LayerNorm`` over the last axis, or :class:`ChannelNorm` over the second, of each modality."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (B, D, H, W, C)``, or ``(B, C, D, H, W)``."""
        if not self.chosen:
            return super().forward(x)
        norm = cast(nn.LayerNorm, self.copies[0])
        axis = 1 if isinstance(norm, ChannelNorm) else -1
        normalised = F.layer_norm(x.movedim(axis, -1), norm.normalized_shape, None, None, norm.eps)
        weight, bias = (self.chosen[name][:, None, None, None] for name in ("weight", "bias"))
        return (normalised * weight + bias).movedim(-1, axis)


class OwnAdapter(OwnByRow):
    """:class:`Adapter` of each modality, channels first: products in batches, both kernels in one convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """Adapt ``x (B, D, H, W, C)``."""
        grid = x.shape[1:4]
        own = self.chosen
        tokens = x.flatten(1, 3).transpose(1, 2)  # (B, C, D * H * W)
        hidden = F.gelu(torch.baddbmm(own["down.bias"][..., None], own["down.weight"], tokens))
        maps = hidden.view(1, -1, *grid)  # channels of all rows
        kernel = (F.pad(own["conv3.weight"], [1] * 6) + own["conv5.weight"]).flatten(0, 1)
        shift = (own["conv3.bias"] + own["conv5.bias"]).flatten()
        mixed = F.gelu(maps + F.conv3d(maps, kernel, shift, padding=2, groups=len(kernel)))
        adapted = torch.baddbmm(own["up.bias"][..., None], own["up.weight"], mixed.view_as(hidden))
        return adapted.transpose(1, 2).view_as(x)


BY_ROW: dict[type[nn.Module], type[OwnByRow]] = {
    nn.InstanceNorm3d: OwnInstanceNorm,
    nn.LayerNorm: OwnLayerNorm,
    Adapter: OwnAdapter,
}


class SharedEncoder(nn.Module):
    """An encoder of one modality, shared by M modalities except for its first stage, norms and adapters.

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
            kind = next((own for plain, own in BY_ROW.items() if isinstance(module, plain)), None)
            if module in within or not (kind or module in own or isinstance(module, nn.BatchNorm3d)):
                continue
            if module not in replaced:
                replaced[module] = (kind or OwnModule)(module, num_modalities, self.rows)
            parent, _, child = name.rpartition(".")
            setattr(encoder.get_submodule(parent), child, replaced[module])

    def forward(self, parts: Mapping[int, Tensor]) -> dict[int, list[Tensor]]:
        """Encode the scans ``(n, 1, D, H, W)`` of each modality as one batch, into each modality's maps."""
        if is_compiled(self.encoder) and sum(map(len, parts.values())) == 1:
            return first_of_two(self.forward, parts)
        self.rows.clear()
        self.rows.update({m: len(part) for m, part in parts.items()})
        first = self.encoder.stem(torch.cat(list(parts.values())))
        by_row = self._by_row()
        self._choose(by_row)
        if is_compiled(self.encoder):
            any_number_of_rows(*tree_leaves(first), *(x for module in by_row for x in module.chosen.values()))
        maps = self.encoder(first, from_stem=True)
        for module in by_row:
            module.chosen.clear()
        of_modalities = [level.split(list(self.rows.values())) for level in maps]
        return {m: [level[i] for level in of_modalities] for i, m in enumerate(parts)}

    def _by_row(self) -> list[OwnByRow]:
        """Return the modules that are computed by row.

        Layer norms are so only if compiled, which fuses norm and scale; otherwise each modality's is one operator.
        """
        compiled = is_compiled(self.encoder)
        modules = (module for module in self.encoder.modules() if isinstance(module, OwnByRow))
        return [module for module in modules if compiled or not isinstance(module, OwnLayerNorm)]

    def _choose(self, modules: list[OwnByRow]) -> None:
        """Set the parameters of each row's modality, with few operators."""
        if not modules:
            return
        of_modalities = [
            torch.cat([p.flatten() for module in modules for p in module.copies[m].parameters()]).expand(n, -1)
            for m, n in self.rows.items()
        ]
        named = [(module, *each) for module in modules for each in module.copies[0].named_parameters()]
        chosen = torch.cat(of_modalities).split([p.numel() for _, _, p in named], 1)
        for (module, name, parameter), of_rows in zip(named, chosen, strict=True):
            module.chosen[name] = of_rows.unflatten(1, parameter.shape)

    def compile(self, *args, **kwargs) -> None:
        """Compile the part after the first stage, as torch does."""
        self.encoder.compile(*args, **kwargs)

    def spread(self, states: Mapping[int, Mapping[str, Tensor]]) -> dict[str, Tensor]:
        """Return entries of this module's state dict with the weights of encoders of one modality.

        Args:
            states: modality -> state dict of its encoder; shared weights are taken from the first.
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
