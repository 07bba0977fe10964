"""The content of a SAM-Med3D checkpoint: the image encoder's tensors and the sizes that they imply."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nnunet_cmc.utils.checkpoints import require_structure

WHAT = "SAM-Med3D image encoder"
REMEDY = "use a file of the registry's vit_b_ori, such as sam_med3d_turbo.pth"


def image_encoder_state(checkpoint: Mapping[str, Any], path: str | Path) -> dict[str, Tensor]:
    """Return the image encoder's tensors, by their own names, of a SAM-Med3D file or a ``SamMed3DEncoder`` state dict.

    ``path`` is for the error message: ValueError if the checkpoint is a 2-D SAM or holds no such tensors.
    """
    state = checkpoint.get("model_state_dict", checkpoint)
    state = state if isinstance(state, dict) else {}
    tensors = {str(key): value for key, value in state.items() if isinstance(value, Tensor)}
    prefix = "image_encoder."
    if any(key.startswith(prefix) for key in tensors):
        tensors = {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
    kernel = tensors.get("patch_embed.proj.weight")
    if kernel is None:
        raise ValueError(f"{path} holds no image encoder (no tensor patch_embed.proj.weight); {REMEDY}.")
    if kernel.ndim == 4:
        raise ValueError(f"{path} is a 2-D SAM (patch kernel {tuple(kernel.shape)}), not for volumes; {REMEDY}.")
    return tensors


def encoder_sizes(state: Mapping[str, Tensor], path: str | Path) -> dict[str, Any]:
    """Infer the arguments of ``SamMed3DEncoder`` from the tensors ``state``; ``path`` is for the error message.

    A block is global if its position tables fit the grid of the position embedding. ValueError if the tensors are not
    those of such an encoder.
    """
    depth = len({key.split(".")[1] for key in state if key.startswith("blocks.")})
    try:
        embed_dim, _, patch_size, _, _ = state["patch_embed.proj.weight"].shape
        _, grid, _, _, _ = state["pos_embed"].shape
        hidden, _ = state["blocks.0.mlp.lin1.weight"].shape
        lengths, head_dims = zip(*(state[f"blocks.{i}.attn.rel_pos_d"].shape for i in range(depth)), strict=True)
        out_channels = len(state["neck.0.weight"])
    except (KeyError, ValueError) as error:
        what = f"it has no tensor {error}" if isinstance(error, KeyError) else "its tensors have other dimensions"
        raise ValueError(f"{path} holds no {WHAT}: {what}; {REMEDY}.") from error
    full = 2 * grid - 1
    windows = {(length + 1) // 2 for length in lengths if length != full}
    if len(windows) > 1 or any(length % 2 == 0 for length in lengths) or embed_dim % head_dims[0]:
        raise ValueError(
            f"{path} holds no {WHAT}: for a grid of {grid} and {embed_dim} channels its "
            f"position tables are {sorted(set(lengths))} by {head_dims[0]}; {REMEDY}."
        )
    sizes = {
        "image_size": grid * patch_size,
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "depth": depth,
        "num_heads": embed_dim // head_dims[0],
        "mlp_ratio": hidden / embed_dim,
        "out_channels": out_channels,
        "global_blocks": [index for index, length in enumerate(lengths) if length == full],
    }
    return sizes | {"window_size": windows.pop()} if windows else sizes


def check_structure(encoder: nn.Module, state: Mapping[str, Tensor], path: str | Path) -> None:
    """Raise ValueError unless ``state`` has exactly the tensors of ``encoder``; all adapters may be missing."""
    has_adapters = any(".adapter." in key for key in state)
    own = {key: value for key, value in encoder.state_dict().items() if has_adapters or ".adapter." not in key}
    require_structure(own, state, path, WHAT, REMEDY)
