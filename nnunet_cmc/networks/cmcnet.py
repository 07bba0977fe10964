"""CMCNet: an encoder and a decoder per modality, and MIA fusion over whichever modalities a sample has."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nnunet_cmc.networks.decoder import DECODERS, Decoder
from nnunet_cmc.networks.encoders import build_encoder
from nnunet_cmc.networks.mia import MIA
from nnunet_cmc.networks.rows import Mask, put, rows_of, take
from nnunet_cmc.networks.skip_fusion import SkipFusion
from nnunet_cmc.networks.stacked import stacked

# Log-probability of every foreground class where a tile holds no modality at all: certain, and finite in float16.
NOTHING_THERE = -20.0


class CMCOutput(NamedTuple):
    """What training sees. Entries of modalities that are absent, or not decoded, are zero.

    logits: ``(B, M, K, D, H, W)``, each modality's decoder.
    features: ``(B, M, C, d, h, w)``, each modality's deepest encoder map: F_ds of the paper, where CSC acts; float32
        under autocast, too.
    present: ``(B, M)`` bool.
    deep: logits at coarser strides, finest first, of a training with deep supervision.
    """

    logits: Tensor
    features: Tensor
    present: Tensor
    deep: tuple[Tensor, ...] = ()


def presence(x: Tensor) -> Tensor:
    """Which modalities a sample has: ``x (B, M, D, H, W)`` -> ``(B, M)`` bool. Absent means exactly zero everywhere."""
    return (x != 0).flatten(2).any(2)


class CMCNet(nn.Module):
    """The network of CMC (Zhou et al., MICCAI 2024) for any M >= 2 modalities and any non-empty subset of them present.

    Args:
        input_channels: M; a modality is a channel.
        num_classes: K, with background.
        patch_size: (D, H, W) in voxels, a multiple of the encoder's stride.
        encoder, encoder_kwargs: a name in :data:`ENCODERS` and its arguments; every modality gets its own.
        decoder_channels: widths of the decoders, at stride 1, 2, 4, ...
        checkpointing: whether training computes what is inside of encoders and decoders again for the backward pass,
            which costs a second forward pass and saves most of the memory.

    Raises:
        ValueError: fewer than two modalities, or a patch that the encoder's stride does not divide.
    """

    pretrained: Tensor
    reliability: Tensor

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        patch_size: list[int],
        encoder: str,
        encoder_kwargs: dict,
        decoder_channels: list[int],
        checkpointing: bool = False,
        deep_supervision: bool = False,
    ):
        super().__init__()
        if deep_supervision:  # what a stock trainer asks of every network
            raise ValueError("CMCNet has no deep supervision: train plans of a CMC planner with -tr CMCTrainer.")
        if input_channels < 2:
            raise ValueError(f"CMC needs two modalities or more; dataset.json names {input_channels} channel.")
        encoders = [build_encoder(encoder, **encoder_kwargs) for _ in range(input_channels)]
        channels, strides = encoders[0].channels, encoders[0].strides
        if any(side % strides[-1] for side in patch_size):
            raise ValueError(f"The patch {list(patch_size)} is not a multiple of the encoder's stride {strides[-1]}.")
        self.num_classes = num_classes
        self.checkpointing = checkpointing
        # Where both encoders are one computation: a ViT's many small operators take a GPU less time than their start
        # takes the host. A CPU has nothing of it, and convolutions would become grouped ones, which are slower.
        self.stacked_on = "cuda" if encoder == "sam_med3d" else None
        self.feature_channels = channels[-1]
        self.stride = strides[-1]
        self.encoders = nn.ModuleList(encoders)
        self.skip_channels = channels[:-1]
        self.mia: nn.Module = MIA(input_channels, channels[-1])
        self.skip_fusion: SkipFusion | None = None  # a trainer may put a SkipFusion here
        decoder = DECODERS.get(encoder, Decoder)
        self.decoders = nn.ModuleList(
            decoder(channels, strides, decoder_channels, num_classes) for _ in range(input_channels)
        )
        # How much each modality is believed about each class, in logarithms: equal at the start, a trainer sets it.
        self.register_buffer("reliability", torch.zeros(input_channels, num_classes))
        # Set in files of `nnunet_cmc weights`; it is how a trainer learns that its network is not random.
        self.register_buffer("pretrained", torch.tensor(False))

    def forward(self, x: Tensor, fusion: Tensor | None = None) -> Tensor | CMCOutput:
        """Predict, or show a trainer every modality's own view.

        Args:
            x: ``(B, M, D, H, W)``; a channel that is exactly zero is absent, and its encoder does not run.
            fusion: ``(B, M, M)`` bool; ``fusion[b, m]`` are the modalities fused for decoder m of sample b, which runs
                only if m is one of them. Absent modalities are left out of it.

        Returns:
            Without ``fusion`` the present modalities' predictions combined, logits ``(B, K, D, H, W)``: background
            where nothing is present. With it :class:`CMCOutput`.
        """
        if fusion is None and len(x) == 1 and x.device.type == "cpu":
            # torch takes a slow convolution for a small batch of one on the CPU: two are ten times faster.
            return self(x.expand(2, -1, -1, -1, -1))[:1]
        present = presence(x)
        if fusion is None:
            output = self._decode(x, present, present[:, None] & present[:, :, None])
            return self.combine(output.logits, present)
        return self._decode(x, present, fusion & present[:, None] & present[:, :, None], never_nothing=True)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """As torch's. ValueError, one sentence, where weights of other plans or labels do not fit."""
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            first, *others = (" ".join(line.split()).rstrip(".") for line in str(error).splitlines()[1:])
            raise ValueError(
                f"The weights do not fit the network of the plans and dataset.json ({first}; and {len(others)} more "
                "such lines): use those that they were trained with."
            ) from error

    def combine(self, logits: Tensor, present: Tensor) -> Tensor:
        """``(B, M, K, D, H, W)`` -> ``(B, K, D, H, W)``: log-probabilities averaged by reliability over the present."""
        score = self.reliability.masked_fill(~present[:, :, None], -torch.inf)
        weight = score.softmax(1).nan_to_num(0.0)  # (B, M, K); a row without any modality has no weights
        background = torch.full_like(weight[:, 0], NOTHING_THERE).index_fill(1, weight.new_zeros(1).long(), 0.0)
        combined = torch.where(present.any(1, keepdim=True), 0.0, background)[:, :, None, None, None]
        for m in range(logits.shape[1]):
            combined = combined + weight[:, m, :, None, None, None] * logits[:, m].log_softmax(1)
        return combined

    def _decode(self, x: Tensor, present: Tensor, fusion: Tensor, never_nothing: bool = False) -> CMCOutput:
        # what every sample has and fuses decides what is computed: the one thing that the host waits for
        asked = torch.cat([present[:, None], fusion], 1).tolist()
        has: Mask = [sample[0] for sample in asked]
        # (B, M), whom each decoder's fused feature is of: nobody, if the decoder does not run
        parties = [[tuple(party) if party[m] else () for m, party in enumerate(sample[1:])] for sample in asked]
        own: Mask = [[bool(party) for party in sample] for sample in parties]
        if never_nothing and not any(map(any, own)):
            return self._decode_nothing(x, present, fusion)

        rows = rows_of(has)
        maps = self._encode({m: take(x[:, m : m + 1], of_m) for m, of_m in rows.items()})
        deepest = {m: pyramid[-1] for m, pyramid in maps.items()}
        grid = [side // self.stride for side in x.shape[2:]]
        features = _scatter(deepest, rows, x, (self.feature_channels, *grid))

        # One fused feature per sample and distinct set of modalities, however many decoders want it.
        wanted = sorted({(b, party) for b, sample in enumerate(parties) for party in sample if party})
        number = {want: i for i, want in enumerate(wanted)}
        members = torch.tensor([party for _, party in wanted])  # on the CPU, where it is read
        fused = self.mia(take(features, [b for b, _ in wanted]), members) if wanted else features[:0, 0]

        decoded: dict[int, list[Tensor]] = {}
        decoders = rows_of(own)
        for m, of_m in decoders.items():
            own_maps = [take(level, [rows[m].index(b) for b in of_m]) for level in maps[m]]
            if self.skip_fusion is not None:
                own_maps[:-1] = self.skip_fusion(own_maps[:-1], *self._joined(m, of_m, parties, maps, rows))
            which = [number[b, parties[b][m]] for b in of_m]
            decoded[m] = self._run(self.decoders[m], take(fused, which), own_maps)
        logits = []
        for i in range(max(map(len, decoded.values()), default=1)):
            of_scale = {m: scales[i] for m, scales in decoded.items()}
            shape = (self.num_classes, *(side // 2**i for side in x.shape[2:]))
            logits.append(_scatter(of_scale, decoders, x, shape))
        features = features.to(torch.promote_types(features.dtype, torch.float32))  # autocast's depends on how they ran
        return CMCOutput(logits[0], features, present, tuple(logits[1:]))

    def _decode_nothing(self, x: Tensor, present: Tensor, fusion: Tensor) -> CMCOutput:
        """Decode a sample of zeros, too, and leave it out: what comes out has the type, number and graph it always has.

        In a distributed training every rank has to send the same tensors, and to take part in the backward pass.
        """
        first = torch.arange(x.shape[1], device=x.device) == 0
        output = self._decode(
            torch.cat([x, torch.zeros_like(x[:1])]),
            torch.cat([present, first[None]]),
            torch.cat([fusion, (first & first[:, None])[None]]),
        )
        return CMCOutput(output.logits[:-1], output.features[:-1], present, tuple(part[:-1] for part in output.deep))

    def _encode(self, parts: dict[int, Tensor]) -> dict[int, list[Tensor]]:
        """Each modality's feature maps of its own samples ``(n, 1, D, H, W)``."""
        alike = len(parts) > 1 and len({part.shape for part in parts.values()}) == 1
        twice = self.checkpointing and torch.is_grad_enabled()
        if alike and not twice and next(iter(parts.values())).device.type == self.stacked_on:
            return dict(zip(parts, stacked([self.encoders[m] for m in parts], list(parts.values())), strict=True))
        return {m: self._run(self.encoders[m], part) for m, part in parts.items()}

    def _joined(self, m: int, of_m: list[int], parties, maps, rows) -> tuple[dict, dict]:
        """Of each other modality that is fused with m in a sample of ``of_m``: its skips there, and which these are."""
        which = rows_of([[n != m and there for n, there in enumerate(parties[b][m])] for b in of_m])
        skips = {
            n: [take(level, [rows[n].index(of_m[i]) for i in fused]) for level in maps[n][:-1]]
            for n, fused in which.items()
        }
        return skips, which

    def _run(self, part: nn.Module, *inputs):
        if self.checkpointing and torch.is_grad_enabled():
            return checkpoint(part, *inputs, use_reentrant=False)
        return part(*inputs)


def _scatter(parts: dict[int, Tensor], rows: dict[int, list[int]], x: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Put each modality's rows where they belong in a zero tensor ``(B, M, *shape)``."""
    like = next(iter(parts.values()), None)
    dtype = torch.float32 if like is None else like.dtype
    empty = torch.zeros((len(x), *shape), device=x.device, dtype=dtype)
    return torch.stack(
        [put(parts[m].to(dtype), rows[m], len(x)) if m in parts else empty for m in range(x.shape[1])], 1
    )
