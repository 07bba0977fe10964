"""One encoder for all modalities, of which each modality has its own first stage, norms and adapters.

All other weights are shared: with few labelled scans every scan of any modality trains them, and they cost once.
"""

from collections.abc import Mapping
from copy import deepcopy

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

    def spread(self, key: str, tensors: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Return the entries of a state dict that give these modalities their tensor ``key`` of the module."""
        return {f"copies.{m}.{key}": tensor for m, tensor in tensors.items()}


class OwnInstanceNorm(nn.Module):
    """Instance norm with ``weight`` and ``bias (M, C)`` of each modality, in one operator for all rows."""

    def __init__(self, norm: nn.InstanceNorm3d, num_modalities: int, rows: Rows):
        super().__init__()
        self.eps, self.rows = norm.eps, rows
        self.weight, self.bias = (nn.Parameter(p.detach().repeat(num_modalities, 1)) for p in (norm.weight, norm.bias))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x (B, C, D, H, W)``."""
        weight, bias = (torch.cat([p[m].repeat(n) for m, n in self.rows.items()]) for p in (self.weight, self.bias))
        # torch computes instance norm like this, too, with one scale for all rows
        flat = x.reshape(1, -1, *x.shape[2:])
        return nn.functional.batch_norm(flat, None, None, weight, bias, training=True, eps=self.eps).view_as(x)

    def spread(self, key: str, tensors: Mapping[int, Tensor]) -> dict[str, Tensor]:
        """Return the entry of a state dict that gives these modalities their scale or shift ``(C)``."""
        whole = self.get_parameter(key).detach().clone()
        for m, tensor in tensors.items():
            whole[m] = tensor
        return {key: whole}


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
        own = {encoder.get_submodule(name) for name in encoder.own}
        replaced: dict[nn.Module, nn.Module] = {}  # nnU-Net's blocks hold a module under several names

        def replacement(module: nn.Module) -> nn.Module:
            if isinstance(module, nn.InstanceNorm3d) and module not in own:
                return OwnInstanceNorm(module, num_modalities, self.rows)
            if module in own or isinstance(module, (nn.LayerNorm, Adapter)):
                return OwnModule(module, num_modalities, self.rows)
            replace_within(module)
            return module

        def replace_within(parent: nn.Module) -> None:
            for name, child in list(parent.named_children()):
                if child not in replaced:
                    replaced[child] = replacement(child)
                setattr(parent, name, replaced[child])

        replace_within(encoder)

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
        modules = dict(self.encoder.named_modules(remove_duplicate=False))
        spread: dict[str, Tensor] = {}
        for key, tensor in next(iter(states.values())).items():
            names = key.split(".")
            for cut in range(len(names)):
                module = modules.get(".".join(names[:cut]))
                if isinstance(module, OwnModule | OwnInstanceNorm):
                    own = module.spread(".".join(names[cut:]), {m: state[key] for m, state in states.items()})
                    spread |= {".".join(["encoder", *names[:cut], name]): value for name, value in own.items()}
                    break
            else:
                spread[f"encoder.{key}"] = tensor
        return spread
