"""Weights from a file into a CMCNet: SAM-Med3D's, the Universal Model's, or those of another CMCNet."""

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nnunet_cmc.networks import universal_unet
from nnunet_cmc.networks.cmcnet import CMCNet
from nnunet_cmc.networks.encoders import ViTPyramid
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.sam_med3d_checkpoint import check_structure, encoder_sizes, image_encoder_state
from nnunet_cmc.networks.universal_unet import UniversalUNetDecoder, UniversalUNetEncoder, is_universal, unet_state
from nnunet_cmc.utils.checkpoints import require_structure

OUTCOMES = ("used", "resized", "at their start")
PER_MODALITY = ("encoders", "decoders", "mia.projections", "mia.attentions")
SKIP_FUSION = "skip_fusion.projections"
Counts = dict[str, dict[str, int]]


def load_pretrained(
    net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, modalities: Sequence[str], only: str | None = None
) -> tuple[str, Counts]:
    """Load the tensors of a checkpoint that ``net`` has, too, and mark ``net`` as pretrained; all others stay.

    Args:
        checkpoint: as ``load_checkpoint`` returns it; its kind is recognised by its content.
        path: its file, for error messages.
        modalities: names of the channels of ``net``.
        only: the one modality whose parts are loaded.

    Returns:
        The kind of the checkpoint, and for each part of the network how many tensors have which of :data:`OUTCOMES`.

    Raises:
        ValueError: the checkpoint is none of these, is incomplete, or does not fit; ``only`` is not a modality.
    """
    targets = _targets(modalities, only)
    if is_universal(checkpoint):
        what, tensors = "the Universal Model's U-Net", _universal(net, checkpoint, path, targets)
    elif _is_cmcnet(checkpoint):
        what, tensors = "a CMCNet", _cmcnet(net, checkpoint, path, {m: modalities[m] for m in targets})
    elif _has_patch_embedding(checkpoint):
        what, tensors = "SAM-Med3D's image encoder", _sam_med3d(net, checkpoint, path, targets)
    else:
        raise ValueError(
            f"{path} is none of the checkpoints that can be used: SAM-Med3D's (sam_med3d_turbo.pth), the Universal "
            "Model's with the U-Net (clip_driven_universal_unet.pth), or one that CMCTrainer saved."
        )
    before = {key: parameter.shape for key, parameter in net.named_parameters()}
    net.load_state_dict(tensors, strict=False)
    net.pretrained.fill_(True)
    counts: Counts = {}
    for key, shape in sorted(before.items(), key=lambda item: "." not in item[0]):  # modules first
        part = counts.setdefault(_part(key, modalities), dict.fromkeys(OUTCOMES, 0))
        part[OUTCOMES[2] if key not in tensors else OUTCOMES[0] if tensors[key].shape == shape else OUTCOMES[1]] += 1
    return what, counts


def _targets(modalities: Sequence[str], only: str | None) -> list[int]:
    chosen = [m for m, name in enumerate(modalities) if only is None or name.casefold() == only.casefold()]
    if not chosen:
        raise ValueError(f"There is no modality {only}; the dataset has {', '.join(modalities)}.")
    return chosen


def _part(key: str, modalities: Sequence[str]) -> str:
    kind, *rest = key.split(".")
    if kind not in ("encoders", "decoders"):
        return {"mia": "fusion", "skip_fusion": "skip fusion"}.get(kind, kind)
    name = modalities[int(rest[0])]
    if "adapter" in rest:
        return f"adapters of {name}"
    return f"convolutional path of {name}" if rest[1] == "path" else f"{kind[:-1]} of {name}"


def _require_sizes(found: dict[str, Any], planned: dict[str, Any], path: str | Path) -> None:
    different = [key for key in planned if found.get(key) != planned[key]]
    if different:
        sizes = ", ".join(f"{key} is {found.get(key)} and not {planned[key]}" for key in different)
        raise ValueError(f"{path} does not fit the encoder of the plans: {sizes}; use the file that was planned for.")


# ---- SAM-Med3D


def _has_patch_embedding(checkpoint: Mapping[str, Any]) -> bool:
    state = checkpoint.get("model_state_dict", checkpoint)
    return isinstance(state, dict) and any(str(key).endswith("patch_embed.proj.weight") for key in state)


def _sam_med3d(
    net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, targets: Iterable[int]
) -> dict[str, Tensor]:
    state = image_encoder_state(checkpoint, path)
    sizes = encoder_sizes(state, path)
    with torch.device("meta"):
        check_structure(SamMed3DEncoder(**sizes), state, path)
    encoder = net.encoders[0]
    if not isinstance(encoder, ViTPyramid):
        raise ValueError(f"{path} is SAM-Med3D's, and the encoder of the plans is not: plan with -pl CMCPlanner.")
    planned = encoder_sizes(encoder.vit.state_dict(), "The network of the plans")
    # positions are resized to the planned image
    _require_sizes(sizes | {"image_size": planned["image_size"]}, planned, path)
    return {f"encoders.{m}.vit.{key}": tensor for m in targets for key, tensor in state.items()}


# ---- the Universal Model


def _universal(
    net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, targets: Iterable[int]
) -> dict[str, Tensor]:
    what, remedy = universal_unet.WHAT, universal_unet.REMEDY
    state = unet_state(checkpoint, path, "zyx")
    sizes = universal_unet.encoder_sizes(state.encoder, path)
    with torch.device("meta"):
        require_structure(UniversalUNetEncoder(**sizes).state_dict(), state.encoder, path, what, remedy)
    encoder = net.encoders[0]
    if not isinstance(encoder, UniversalUNetEncoder):
        raise ValueError(
            f"{path} is the Universal Model's, and the encoder of the plans is not: plan with -pl CMCPlannerUniversal."
        )
    planned = universal_unet.encoder_sizes(encoder.state_dict(), "The network of the plans")
    _require_sizes(sizes, planned, path)
    tensors = {f"encoders.{m}.{key}": tensor for m in targets for key, tensor in state.encoder.items()}
    if state.decoder:
        with torch.device("meta"):
            decoder = UniversalUNetDecoder(sizes["channels"])
        require_structure(decoder.state_dict(), state.decoder, path, what, remedy)
        tensors |= {f"decoders.{m}.unet.{key}": tensor for m in targets for key, tensor in state.decoder.items()}
    return tensors


# ---- a CMCNet


def _is_cmcnet(checkpoint: Mapping[str, Any]) -> bool:
    weights = checkpoint.get("network_weights")
    return isinstance(weights, dict) and "mia.bias" in weights and "init_args" in checkpoint


def _channel_names(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the modality of each channel in the training; empty where the checkpoint does not state it."""

    def entry(*keys: str) -> Any:
        content: Any = checkpoint
        for key in ("init_args", "dataset_json", *keys):
            content = content.get(key) if isinstance(content, dict) else None
        return content

    own, names = entry("cmc", "modalities"), entry("channel_names")
    if isinstance(own, list):
        names = dict(enumerate(own))
    return {str(channel): str(name) for channel, name in names.items()} if isinstance(names, dict) else {}


def _cmcnet(net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, targets: dict[int, str]) -> dict[str, Tensor]:
    """Return the parts of modalities of the same name, whatever their channels in the checkpoint."""
    names = _channel_names(checkpoint)
    sources = {name.casefold(): channel for channel, name in names.items()}
    origin = {m: sources[name.casefold()] for m, name in targets.items() if name.casefold() in sources}
    if not origin:
        raise ValueError(
            f"{path} knows the modalities {', '.join(names.values()) or '(none)'}, of which none is "
            f"{', '.join(targets.values())}."
        )
    weights, own = checkpoint["network_weights"], net.state_dict()
    tensors: dict[str, Tensor] = {}
    parts = [*PER_MODALITY]
    if net.skip_fusion is not None and any(str(key).startswith(SKIP_FUSION) for key in weights):
        parts.append(SKIP_FUSION)
    for part, (m, channel) in product(parts, origin.items()):
        here, found = f"{part}.{m}.", _without_classes(weights, f"{part}.{channel}.")
        remedy = "use a checkpoint trained with plans of the same planner"
        require_structure(_without_classes(own, here), found, path, f"{part} of these plans", remedy)
        tensors |= {here + key: tensor for key, tensor in found.items()}
    if len(origin) == len(net.encoders):
        bias = {"mia.bias": weights["mia.bias"]}
        require_structure({"mia.bias": own["mia.bias"]}, bias, path, "fusion of these plans", "use another checkpoint")
        tensors |= bias
    return tensors


def _without_classes(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under ``prefix`` without it, but for layers that depend on the classes."""
    mine = {k: v for k, v in state.items() if isinstance(k, str) and k.startswith(prefix)}
    return {k.removeprefix(prefix): v for k, v in mine.items() if ".seg_layers." not in k}
