"""Loading pretrained weights into a CMCNet: SAM-Med3D's, the Universal Model's, or those of another CMCNet."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from nnunet_cmc.networks import universal_unet
from nnunet_cmc.networks.cmcnet import CMCNet
from nnunet_cmc.networks.encoders import Encoder, ViTPyramid
from nnunet_cmc.networks.peer import PEER
from nnunet_cmc.networks.sam_med3d import SamMed3DEncoder
from nnunet_cmc.networks.sam_med3d_checkpoint import check_structure, encoder_sizes, image_encoder_state
from nnunet_cmc.networks.sharing import SharedEncoder
from nnunet_cmc.networks.universal_unet import UniversalUNetDecoder, UniversalUNetEncoder, is_universal, unet_state
from nnunet_cmc.utils.checkpoints import require_structure
from nnunet_cmc.utils.names import numbered_if_equal

OUTCOMES = ("used", "resized", "at their start")
# Parts of a CMCNet, and whether a checkpoint of another recipe may lack them.
PARTS = {"encoders": False, "decoders": False, "merges": False, "mia": True, "skip_fusion": True}
Counts = dict[str, dict[str, int]]


def load_pretrained(
    net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, modalities: Sequence[str], only: str | None = None
) -> tuple[str, Counts]:
    """Load the tensors of a checkpoint that ``net`` also has, and mark ``net`` as pretrained; all others stay.

    Args:
        checkpoint: as ``load_checkpoint`` returns it; its kind is recognised by its content.
        path: its file, for error messages.
        modalities: names of the channels of ``net``.
        only: load only this modality's own parts and the shared ones; all modalities, if None.

    Returns:
        The kind of the checkpoint, and for each part of the network the number of tensors per :data:`OUTCOMES`.

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
    if PEER in net.auxiliary:
        # it keeps random values for what the file lacks, such as layers that depend on the classes
        tensors |= {f"auxiliary.{PEER}.network.{key}": tensor for key, tensor in tensors.items()}
    before = {key: parameter.shape for key, parameter in net.named_parameters()}
    net.load_state_dict(tensors, strict=False)
    net.pretrained.fill_(True)
    counts: Counts = {}
    for key, shape in sorted(before.items(), key=lambda item: "." not in item[0]):  # modules first
        part = counts.setdefault(_part(net, key, modalities), dict.fromkeys(OUTCOMES, 0))
        part[OUTCOMES[2] if key not in tensors else OUTCOMES[0] if tensors[key].shape == shape else OUTCOMES[1]] += 1
    return what, counts


def _targets(modalities: Sequence[str], only: str | None) -> list[int]:
    chosen = [m for m, name in enumerate(modalities) if only is None or name.casefold() == only.casefold()]
    if not chosen:
        raise ValueError(f"There is no modality {only}; the dataset has {', '.join(modalities)}.")
    return chosen


def _own(net: CMCNet) -> re.Pattern:
    """Match keys of a state dict that belong to one modality, with its channel as the second group."""
    prefixes = [
        r"(?:mia|skip_fusion)\.(?:\w+\.)??(?:projections|attentions|intra)",
        r"encoders\.0\..+\.copies" if net.shared else "encoders",
        *(["decoders", "merges"] if len(net.decoders) > 1 else []),
    ]
    return re.compile(rf"((?:{'|'.join(prefixes)})\.)(\d+)(\..+)")


def _part(net: CMCNet, key: str, modalities: Sequence[str]) -> str:
    kind, *within = key.split(".")
    if kind == "auxiliary":
        return within[0]
    if kind not in ("encoders", "decoders"):
        return {"mia": "fusion", "merges": "fusion", "skip_fusion": "skip fusion"}.get(kind, kind)
    name = "adapters" if ".adapter." in key else "convolutional path" if ".path." in key else kind.removesuffix("s")
    own = _own(net).fullmatch(key)
    return f"{name} of {modalities[int(own[2])]}" if own else name


def _planned_encoder(net: CMCNet) -> Encoder:
    """Build the plans' encoder of one modality, without values."""
    with torch.device("meta"):
        return net.build_encoder()


def _for_encoders(net: CMCNet, targets: Iterable[int], state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return entries of ``net``'s state dict that give the encoders of these modalities this state."""
    if net.shared:
        spread = cast(SharedEncoder, net.encoders[0]).spread(dict.fromkeys(targets, state))
        return {f"encoders.0.{key}": tensor for key, tensor in spread.items()}
    return {f"encoders.{m}.{key}": tensor for m in targets for key, tensor in state.items()}


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
    encoder = _planned_encoder(net)
    if not isinstance(encoder, ViTPyramid):
        raise ValueError(f"{path} is SAM-Med3D's, and the encoder of the plans is not: plan with -pl CMCPlanner.")
    planned = encoder_sizes(encoder.vit.state_dict(), "The network of the plans")
    # positions are resized to the planned image
    _require_sizes(sizes | {"image_size": planned["image_size"]}, planned, path)
    return _for_encoders(net, targets, {f"vit.{key}": tensor for key, tensor in state.items()})


# ---- the Universal Model


def _universal(
    net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, targets: Iterable[int]
) -> dict[str, Tensor]:
    what, remedy = universal_unet.WHAT, universal_unet.REMEDY
    state = unet_state(checkpoint, path, "zyx")
    sizes = universal_unet.encoder_sizes(state.encoder, path)
    with torch.device("meta"):
        require_structure(UniversalUNetEncoder(**sizes).state_dict(), state.encoder, path, what, remedy)
    encoder = _planned_encoder(net)
    if not isinstance(encoder, UniversalUNetEncoder):
        raise ValueError(
            f"{path} is the Universal Model's, and the encoder of the plans is not: plan with -pl CMCPlannerUniversal."
        )
    planned = universal_unet.encoder_sizes(encoder.state_dict(), "The network of the plans")
    _require_sizes(sizes, planned, path)
    tensors = _for_encoders(net, targets, state.encoder)
    if state.decoder:
        with torch.device("meta"):
            decoder = UniversalUNetDecoder(sizes["channels"])
        require_structure(decoder.state_dict(), state.decoder, path, what, remedy)
        decoders = [0] if len(net.decoders) == 1 else targets
        tensors |= {f"decoders.{m}.unet.{key}": tensor for m in decoders for key, tensor in state.decoder.items()}
    return tensors


# ---- a CMCNet


def _is_cmcnet(checkpoint: Mapping[str, Any]) -> bool:
    weights = checkpoint.get("network_weights")
    ours = isinstance(weights, dict) and any(str(key).startswith("encoders.0.") for key in weights)
    return ours and "init_args" in checkpoint


def _channel_names(checkpoint: Mapping[str, Any]) -> dict[str, str]:
    """Return the modality of each channel in the training; empty if the checkpoint does not state it."""

    def entry(*keys: str) -> Any:
        content: Any = checkpoint
        for key in ("init_args", "dataset_json", *keys):
            content = content.get(key) if isinstance(content, dict) else None
        return content

    own, names = entry("cmc", "modalities"), entry("channel_names")
    if isinstance(own, list):
        names = dict(enumerate(own))
    elif isinstance(names, dict):
        channels = sorted(map(str, names), key=lambda channel: (len(channel), channel))
        names = {str(channel): str(name) for channel, name in names.items()}
        names = dict(zip(channels, numbered_if_equal([names[channel] for channel in channels]), strict=True))
    return {str(channel): str(name) for channel, name in names.items()} if isinstance(names, dict) else {}


def _cmcnet(net: CMCNet, checkpoint: Mapping[str, Any], path: str | Path, targets: dict[int, str]) -> dict[str, Tensor]:
    """Return the tensors of modalities of the same name, whatever their channels in the checkpoint."""
    names = _channel_names(checkpoint)
    sources = {name.casefold(): channel for channel, name in names.items()}
    origin = {m: sources[name.casefold()] for m, name in targets.items() if name.casefold() in sources}
    if not origin:
        raise ValueError(
            f"{path} has the modalities {', '.join(names.values()) or '(none)'}, but not "
            f"{', '.join(targets.values())}: use another file, or name the modalities of the dataset as there."
        )
    weights = checkpoint["network_weights"]
    has, wants = map(_arrangement, (weights, net.state_dict()))
    if has != wants:
        raise ValueError(
            f"{path} has {has}, and the network to fill {wants}: name the trainer of the checkpoint, "
            f"{checkpoint.get('trainer_name', '(unknown)')}, with -tr."
        )
    mine = _of_channels(net.state_dict(), _own(net), {str(m): m for m in origin})
    theirs = _of_channels(weights, _own(net), {channel: m for m, channel in origin.items()})
    if len(origin) < net.num_modalities:  # the bias of MIA belongs to the sum over all modalities
        mine.pop("mia.bias", None), theirs.pop("mia.bias", None)
    tensors: dict[str, Tensor] = {}
    for part, optional in PARTS.items():
        own, found = ({k: v for k, v in state.items() if k.startswith(f"{part}.")} for state in (mine, theirs))
        if not own or (optional and not found):
            continue
        remedy = "use a checkpoint trained with plans of the same planner"
        require_structure(own, found, path, f"{part} of these plans", remedy)
        tensors |= found
    return tensors


def _arrangement(weights: Mapping[str, Any]) -> str:
    """Describe which parts of a network with these weights are separate for each modality."""
    encoders, decoders = (
        any(str(key).startswith(f"{part}.1.") for key in weights) for part in ("encoders", "decoders")
    )
    return {
        (True, True): "an encoder and a decoder of each modality",
        (True, False): "an encoder of each modality and one decoder of all",
        (False, True): "one encoder of all modalities and a decoder of each",
        (False, False): "one encoder and one decoder of all modalities",
    }[encoders, decoders]


def _of_channels(
    state: Mapping[str, Tensor], of_modality: re.Pattern, channels: Mapping[str, int]
) -> dict[str, Tensor]:
    """Return tensors of these channels, renumbered, and shared ones, without layers that depend on the classes."""
    chosen: dict[str, Tensor] = {}
    for key, tensor in state.items():
        own = of_modality.fullmatch(str(key))
        if ".seg_layers." not in str(key) and (own is None or own[2] in channels):
            chosen[f"{own[1]}{channels[own[2]]}{own[3]}" if own else str(key)] = tensor
    return chosen
