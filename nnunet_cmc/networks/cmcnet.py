"""CMCNet: encoders, MIA fusion over the modalities that a sample has, and decoders."""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nnunet_cmc.networks.combination import ByReliability, FirstPresent, first
from nnunet_cmc.networks.compiled import is_compiled
from nnunet_cmc.networks.decoder import DECODERS, Decoder
from nnunet_cmc.networks.encoded import Encoded
from nnunet_cmc.networks.encoders import build_encoder
from nnunet_cmc.networks.execution import Execution, is_faster_doubled
from nnunet_cmc.networks.fusion_weights import FusionWeights
from nnunet_cmc.networks.mia import MIA, MeanFusion
from nnunet_cmc.networks.mmformer import ConcatenatedSkips
from nnunet_cmc.networks.rows import Mask, columns, grid, rows_of, take
from nnunet_cmc.networks.sharing import SharedEncoder
from nnunet_cmc.networks.skip_fusion import SkipFusion

Group = tuple[bool, ...]  # modalities that are fused, (M)
Groups = dict[tuple[int, int], Group]  # (sample, modality) -> modalities fused for its prediction
Wanted = dict[tuple[int, Group], int]  # (sample, fused modalities) -> row of the fused features
Logits = dict[tuple[int, int], list[Tensor]]  # (sample, modality) -> (K, D, H, W), finest first

# Log-probability of every foreground class in a tile without any modality: close to 0, and finite in float16.
NO_MODALITY_LOGIT = -20.0


class CMCOutput(NamedTuple):
    """The network's output for training. Entries of modalities that are absent, or not decoded, are zero.

    Attributes:
        logits: ``(B, M, K, D, H, W)``, decoded from the modalities that m is fused with.
        features: ``(B, M, C, d, h, w)``, each modality's deepest encoder map: F_ds of the paper, where CSC acts;
            float32 under autocast, too.
        present: ``(B, M)`` bool.
        deep: logits at coarser resolutions, finest first, with deep supervision.
        auxiliary: outputs of the network's auxiliary modules by name, ``(B, ...)`` each.
    """

    logits: Tensor
    features: Tensor
    present: Tensor
    deep: tuple[Tensor, ...] = ()
    auxiliary: Mapping[str, tuple[Tensor, ...]] = MappingProxyType({})


def presence(x: Tensor) -> Tensor:
    """Tell which modalities are present in each sample of ``x (B, M, D, H, W)``, not exactly zero: ``(B, M)`` bool."""
    return (x != 0).flatten(2).any(2)


def require_several(modalities: int) -> None:
    """Raise a ValueError if there are fewer than two modalities."""
    if modalities < 2:
        raise ValueError(
            f"CMC needs two modalities or more, but dataset.json names {modalities} channel: add a channel, or use "
            "nnU-Net's own planner and trainer."
        )


class CMCNet(nn.Module):
    """The network of CMC (Zhou et al., MICCAI 2024) for any M >= 2 modalities and any non-empty subset of them present.

    As planned, the modalities share one encoder, except for its first stage, norms and adapters, and one decoder: MIA,
    which starts as the mean, fuses the deepest features of the present modalities, and every skip is their mean. After
    :meth:`separate`, each modality has its own encoder and its own decoder, as in the paper.

    A change of a recipe (`changes.py`) may replace these:

    Attributes:
        mia: fuses the deepest features; called as ``MIA``.
        only_modality: the one that is looked at, as if all others were absent; None for all.
        fuses: whether modalities are fused at all, or each is decoded by itself.
        combination: of the modalities' predictions, see `combination.py`.
        fusion_weights: of the modalities in the features that a shared decoder predicts from, outside of training; None
            where fusion is not their mean at the start.
        skip_fusion: of the skips, or None. Separate decoders may get those of other modalities by a
            ``SkipFusion``; a shared one gets the mean of the present ones, or ``ConcatenatedSkips``.
        auxiliary: modules used in training only, by name. Each is called with ``x``, ``fusion``, the ``Encoded``
            maps, the logits ``(B, M, K, D, H, W)`` and ``present (B, M)``, and returns a tuple of tensors
            ``(B, ...)`` for :class:`CMCOutput`.
        deepest_grid: (d, h, w), size of the deepest features at the planned patch.
        execution: how encoders and decoders are computed.

    Args:
        input_channels: M; a modality is a channel.
        num_classes: K, with background.
        patch_size: (D, H, W) in voxels, a multiple of the encoder's strides.
        encoder, encoder_kwargs: a name in ``nnunet_cmc.networks.encoders.ENCODERS`` and its arguments.
        decoder_channels: widths of the decoders, at stride 1, 2, 4, ...; nnU-Net's own decoder takes none.
        checkpointing: whether training recomputes the activations of encoders and decoders in the backward pass.

    Raises:
        ValueError: fewer than two modalities, or a patch that the encoder's strides do not divide.
    """

    pretrained: Tensor

    def __init__(
        self,
        input_channels: int,
        num_classes: int,
        patch_size: list[int],
        encoder: str,
        encoder_kwargs: dict,
        decoder_channels: list[int] | None = None,
        checkpointing: bool = False,
        deep_supervision: bool | None = None,
    ):
        super().__init__()
        if deep_supervision is not None:  # a stock trainer asks every network for it, or for none
            raise ValueError(
                "nnU-Net's own trainers cannot train plans of a CMC planner: give -tr CMCTrainer_20epochs, or another "
                "trainer of nnunet_cmc."
            )
        require_several(input_channels)
        self.num_modalities, self.num_classes = input_channels, num_classes
        self.build_encoder = partial(build_encoder, encoder, **encoder_kwargs)
        self.build_decoder = partial(DECODERS.get(encoder, Decoder), widths=decoder_channels, num_classes=num_classes)
        self.execution = Execution.of(encoder, checkpointing)

        one = self.build_encoder()
        self.channels, stride = one.channels, one.strides[-1]
        if any(side % step for side, step in zip(patch_size, stride, strict=True)):
            raise ValueError(
                f"The patch {list(patch_size)} is not a multiple of the encoder's strides {list(stride)}: change "
                "patch_size in the plans."
            )
        self.deepest_grid = [side // step for side, step in zip(patch_size, stride, strict=True)]
        self.shared = True
        decoder = self.build_decoder(one)
        self.encoders = nn.ModuleList([SharedEncoder(one, input_channels)])
        self.decoders = nn.ModuleList([decoder])
        self.mia: nn.Module = MIA(input_channels, self.channels[-1], from_mean=True)
        self.merges = nn.ModuleList()
        self.fusion_weights: FusionWeights | None = FusionWeights(input_channels)
        self.skip_fusion: SkipFusion | ConcatenatedSkips | None = None
        self.only_modality: int | None = None
        self.fuses = True
        self.combination: nn.Module = FirstPresent()
        self.auxiliary = nn.ModuleDict()
        # Set in files of `nnunet_cmc weights`, so that a trainer knows that its network is not random.
        self.register_buffer("pretrained", torch.tensor(False))

    def separate(self, decoders: bool = True) -> None:
        """Arrange the network anew, with random weights: an encoder and, if asked for, a decoder of each modality.

        Such a decoder gets its modality's skips and, merged by a 1^3 convolution that is initialised to the mean, the
        fused and its modality's own deepest features.
        """
        encoders = [self.build_encoder() for _ in range(self.num_modalities)]
        width = self.channels[-1]
        self.shared, self.fusion_weights = False, None
        self.encoders = nn.ModuleList(encoders)
        if not decoders:
            return
        self.decoders = nn.ModuleList(map(self.build_decoder, encoders))
        self.mia = MIA(self.num_modalities, width)
        self.merges = nn.ModuleList(nn.Conv3d(2 * width, width, 1, bias=False) for _ in encoders)
        for merge in self.merges:
            merge.weight.data = torch.eye(width).repeat(1, 2)[:, :, None, None, None] / 2
        self.combination = ByReliability(self.num_modalities, self.num_classes)

    def predict_alone(self) -> None:
        """Predict from each modality by itself, and combine the predictions: nothing is fused."""
        self.fuses, self.fusion_weights = False, None
        self.mia, self.merges = MeanFusion(), nn.ModuleList()  # the mean of one
        self.combination = ByReliability(self.num_modalities, self.num_classes)

    @property
    def predicts_once(self) -> bool:
        """Whether one prediction is made from all present modalities together."""
        return self.fuses and len(self.decoders) == 1

    def parts(self, modalities: Sequence[str]) -> dict[str, nn.Module]:
        """Return the encoders and decoders by name; ``modalities`` are the names of the channels."""
        named: dict[str, nn.Module] = {}
        for kind, parts in (("encoder", self.encoders), ("decoder", self.decoders)):
            of = [""] if len(parts) == 1 else [f" {name}" for name in modalities]
            named |= {f"{kind}{which}": part for which, part in zip(of, parts, strict=True)}
        return named

    def forward(self, x: Tensor, fusion: Tensor | None = None) -> Tensor | CMCOutput:
        """Predict; with ``fusion`` return the predictions of chosen sets of modalities, and features, for training.

        Args:
            x: ``(B, M, D, H, W)``; a channel that is exactly zero is absent and skipped.
            fusion: ``(B, M, M)`` bool; ``fusion[b, m]`` are the modalities fused for the prediction m of sample b,
                which is made only if m is one of them. Absent modalities are ignored, and so are all but m if the
                network does not fuse.

        Returns:
            Without ``fusion`` the prediction from all present modalities, logits ``(B, K, D, H, W)``, background for a
            sample without any; with it :class:`CMCOutput`.
        """
        if fusion is None:
            if is_faster_doubled(x, self.channels[0]):
                return self(x.expand(2, -1, -1, -1, -1))[:1]
            output = self.predictions(x)
            return self.combine(output.logits, output.present)
        present = self._present(x)
        return self._decode(x, present, fusion & self._together(present), trains=True)

    def predictions(self, x: Tensor) -> CMCOutput:
        """Make the predictions of ``x (B, M, D, H, W)`` that :meth:`combine` takes."""
        present = self._present(x)
        asked = self._together(present)
        if self.predicts_once:
            asked = asked & first(present)[:, :, None]
        return self._decode(x, present, asked)

    def _present(self, x: Tensor) -> Tensor:
        """Tell which modalities of ``x (B, M, D, H, W)`` are present and looked at: ``(B, M)`` bool."""
        present = presence(x)
        if self.only_modality is not None:
            present = present & (torch.arange(self.num_modalities, device=x.device) == self.only_modality)
        return present

    def _together(self, present: Tensor) -> Tensor:
        """Return the modalities that may be fused for the prediction of each: ``(B, M)`` -> ``(B, M, M)`` bool."""
        return present[:, None] & present[:, :, None] if self.fuses else torch.diag_embed(present)

    def load_state_dict(self, state_dict, strict: bool = True, assign: bool = False):
        """Load as torch does. ValueError if the weights are of other plans or labels."""
        try:
            return super().load_state_dict(state_dict, strict, assign)
        except RuntimeError as error:
            lines = str(error).splitlines()
            message, *others = (" ".join(line.split()).rstrip(".") for line in lines[1:] or lines)
            more = f"; and {len(others)} more such lines" if others else ""
            raise ValueError(
                f"The weights do not fit the network of the plans and dataset.json ({message}{more}): use those that "
                "they were trained with, and the version of nnunet_cmc."
            ) from error

    def combine(self, logits: Tensor, present: Tensor) -> Tensor:
        """Combine the predictions of the present modalities: ``(B, M, K, ...)`` -> ``(B, K, ...)``."""
        combined = self.combination(logits, present)
        background = combined.new_full((1, self.num_classes, 1, 1, 1), NO_MODALITY_LOGIT)
        background[:, 0] = 0.0
        return torch.where(present.any(1)[:, None, None, None, None], combined, background)

    def _decode(self, x: Tensor, present: Tensor, fusion: Tensor, trains: bool = False) -> CMCOutput:
        # which modalities are present and fused decides what is computed, so that the host waits for the GPU here
        asked = torch.cat([present[:, None], fusion], 1).tolist()
        has: Mask = [sample[0] for sample in asked]
        # (b, m) -> the modalities fused for it
        groups: Groups = {
            (b, m): tuple(group) for b, sample in enumerate(asked) for m, group in enumerate(sample[1:]) if group[m]
        }
        if not groups:
            if trains:
                return self._decode_without_modality(x, present, fusion)
            nothing = x.new_zeros(1, 1, 1, 1, 1, 1)
            return CMCOutput(nothing.expand(*x.shape[:2], self.num_classes, *x.shape[2:]), nothing, present)

        rows = rows_of(has)
        maps = self._encode({m: take(x[:, m : m + 1], of_m) for m, of_m in rows.items()})
        encoded = Encoded(maps, {(b, m): i for m, of_m in rows.items() for i, b in enumerate(of_m)})
        features = grid({(b, m): encoded.of(b, m)[-1] for b, m in encoded.row}, present)

        # One fused feature per sample and distinct set of modalities, however many predictions are made from it.
        distinct = {(b, group) for (b, _), group in groups.items()}
        wanted = {want: i for i, want in enumerate(sorted(distinct, key=lambda want: (sum(want[1]), want)))}
        members = torch.tensor([group for _, group in wanted])  # on the CPU, where it is read
        deepest = take(features, [b for b, _ in wanted])
        weights = (
            None if trains or self.fusion_weights is None else self.fusion_weights.of([group for _, group in wanted])
        )
        if weights is not None:
            deepest = deepest * columns(weights, deepest)
        fused = self.mia(deepest, members)

        if len(self.decoders) == 1:
            predicted = self._decode_shared(groups, wanted, fused, encoded, weights)
        else:
            predicted = self._decode_separate(groups, wanted, fused, encoded)
        scales = [
            grid({where: logits[i] for where, logits in predicted.items()}, present)
            for i in range(len(next(iter(predicted.values()))))
        ]
        features = features.to(torch.promote_types(features.dtype, torch.float32))  # autocast's depends on how they ran
        modules = self.auxiliary.items() if trains else ()
        auxiliary = {name: module(x, fusion, encoded, scales[0], present) for name, module in modules}
        return CMCOutput(scales[0], features, present, tuple(scales[1:]), auxiliary)

    def _decode_shared(
        self, groups: Groups, wanted: Wanted, fused: Tensor, encoded: Encoded, weights: Tensor | None
    ) -> Logits:
        """Decode each wanted set of modalities, whose fused feature is the row ``wanted[b, group]`` of ``fused``."""
        scales = self.execution.run(self.decoders[0], [*self._shared_skips(wanted, encoded, weights), fused])
        predicted = list(zip(*(scale.unbind() for scale in scales), strict=True))
        return {(b, m): list(predicted[wanted[b, group]]) for (b, m), group in groups.items()}

    def _shared_skips(self, wanted: Wanted, encoded: Encoded, weights: Tensor | None) -> list[Tensor]:
        """Fuse the skips of each wanted set of modalities."""
        if isinstance(self.skip_fusion, ConcatenatedSkips):
            rows = rows_of([list(group) for _, group in wanted])
            samples = [b for b, _ in wanted]
            theirs = {m: encoded.take(m, [samples[i] for i in of_m])[:-1] for m, of_m in rows.items()}
            return self.skip_fusion(theirs, rows, len(samples))
        fused: list[tuple[Tensor, ...]] = []  # of each level, all rows
        for size, several in groupby(wanted, key=lambda want: sum(want[1])):  # as they are sorted
            scans = [(*want, m) for want in several for m, there in enumerate(want[1]) if there]
            levels = list(zip(*(encoded.of(b, m)[:-1] for b, _, m in scans), strict=True))
            if size > 1:
                skips = list(map(torch.stack, levels))
                if weights is not None:
                    of_scans = torch.stack([weights[wanted[b, group], m] for b, group, m in scans])
                    skips = [skip * columns(of_scans, skip) for skip in skips]
                levels = [skip.unflatten(0, (-1, size)).mean(1).unbind() for skip in skips]
            fused = [rows + more for rows, more in zip(fused, levels, strict=True)] if fused else levels
        return list(map(torch.stack, fused))

    def _decode_separate(self, groups: Groups, wanted: Wanted, fused: Tensor, encoded: Encoded) -> Logits:
        """Decode as :meth:`_decode_shared`, with the decoder of each modality."""
        predicted: Logits = {}
        for m, decoder in enumerate(self.decoders):
            of_m = [b for b, n in groups if n == m]
            if not of_m:
                continue
            *skips, own = encoded.take(m, of_m)
            if isinstance(self.skip_fusion, SkipFusion):
                others = rows_of([[n != m and there for n, there in enumerate(groups[b, m])] for b in of_m])
                theirs = {n: encoded.take(n, [of_m[i] for i in which])[:-1] for n, which in others.items()}
                skips = self.skip_fusion(skips, theirs, others)
            deepest = take(fused, [wanted[b, groups[b, m]] for b in of_m])
            if self.fuses:
                deepest = self.merges[m](torch.cat([deepest, own], 1))
            scales = self.execution.run(decoder, [*skips, deepest])
            of_samples = zip(*(scale.unbind() for scale in scales), strict=True)
            predicted |= {(b, m): list(of_sample) for b, of_sample in zip(of_m, of_samples, strict=True)}
        return predicted

    def _decode_without_modality(self, x: Tensor, present: Tensor, fusion: Tensor) -> CMCOutput:
        """Decode a sample of zeros with ``x`` and drop it, so that the output has its usual type, number and graph.

        In a distributed training every rank has to send the same tensors and to take part in the backward pass.
        """
        one = torch.arange(x.shape[1], device=x.device) == 0
        output = self._decode(
            torch.cat([x, torch.zeros_like(x[:1])]),
            torch.cat([present, one[None]]),
            torch.cat([fusion, (one & one[:, None])[None]]),
            trains=True,
        )
        logits, features, deep = output.logits[:-1], output.features[:-1], tuple(part[:-1] for part in output.deep)
        auxiliary = {name: tuple(part[:-1] for part in parts) for name, parts in output.auxiliary.items()}
        return CMCOutput(logits, features, present, deep, auxiliary)

    def _encode(self, parts: dict[int, Tensor]) -> dict[int, list[Tensor]]:
        """Compute each modality's feature maps of its own samples ``(n, 1, D, H, W)``."""
        if self.shared:
            return self.execution.run(self.encoders[0], parts)
        return self.execution.run_each(list(self.encoders), parts)

    def compile_parts(self, **options) -> None:
        """Compile encoders and decoders, each as a whole graph for any number of rows, and any set of modalities.

        Of a shared encoder only the common part is compiled, after the first stage. ``options`` are those of
        ``torch.compile``.
        """
        if not is_compiled(self.decoders[0]):
            self.execution.compile([*self.encoders, *self.decoders], **options)

    def order_for(self, device: torch.device) -> None:
        """Order the weights in memory as training is fastest on ``device``; compiled parts stay as they are."""
        if not is_compiled(self.decoders[0]):
            self.execution.order(self.parameters(), device)
