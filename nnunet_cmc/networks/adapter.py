"""Adapters: the few parameters that fit a pretrained transformer to a new modality."""

from torch import Tensor, nn
from torch.nn import functional as F


class Adapter(nn.Module):
    """Bottleneck with two depthwise 3-D convolutions, 3^3 and 5^3, on a grid of tokens ``(B, D, H, W, C)``.

    The last layer is initialised to zero, so that an adapter beside the MLP of a pretrained block at first has no
    effect.
    """

    def __init__(self, dim: int, reduction: int = 4):
        super().__init__()
        hidden = max(dim // reduction, 1)
        self.down = nn.Linear(dim, hidden)
        self.conv3 = nn.Conv3d(hidden, hidden, 3, padding=1, groups=hidden)
        self.conv5 = nn.Conv3d(hidden, hidden, 5, padding=2, groups=hidden)
        self.up = nn.Linear(hidden, dim)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.down(x)).permute(0, 4, 1, 2, 3)
        x = F.gelu(x + self.conv3(x) + self.conv5(x))
        return self.up(x.permute(0, 2, 3, 4, 1))


def freeze_all_but_adapters(encoder: nn.Module) -> None:
    """Freeze all parameters of ``encoder`` but those of adapters and norms. ValueError if it has no adapters."""
    if not any(isinstance(module, Adapter) for module in encoder.modules()):
        raise ValueError("The encoder has no adapters to train; build it with adapters=True.")
    encoder.requires_grad_(False)
    for module in encoder.modules():
        if isinstance(module, Adapter) or "norm" in type(module).__name__.lower():
            module.requires_grad_(True)
