"""A recipe: all settings in which trainers differ, as one frozen value."""

import re
from dataclasses import dataclass, field
from itertools import combinations

from nnunet_cmc.data.loading.fusion import FuseOrSplit, Fusion
from nnunet_cmc.data.loading.laterality import LEFT_RIGHT
from nnunet_cmc.data.loading.style import SwapStyles
from nnunet_cmc.data.loading.views import FusePairs, RandomizeContrast, StrongView, View
from nnunet_cmc.losses.schedules import Schedule
from nnunet_cmc.networks.changes import (
    DecodeAlone,
    Evidential,
    FuseByMean,
    FuseSkips,
    MMFormer,
    NetworkChange,
    OwnDecoderNorms,
    PredictAlone,
    SeparateModalities,
    ShareEncoder,
    ShowOnly,
    SuperviseDeep,
    TrainAdapters,
    WithPeer,
)
from nnunet_cmc.trainers.optimizers import AdamW, ByLength, ConstantAdam, StockSGD
from nnunet_cmc.trainers.teacher import Teacher
from nnunet_cmc.trainers.terms import (
    CPS,
    AreaSimilarity,
    AuxiliarySupervised,
    Discounted,
    Distillation,
    PeerSupervised,
    Pseudo,
    Relearning,
    SemanticConsistency,
    Supervised,
    Term,
)
from nnunet_cmc.trainers.whole_scan_labels import WholeScanLabels


@dataclass(frozen=True)
class Length:
    """Length of a training; None stands for nnU-Net's own number.

    Attributes:
        epochs: of the training.
        iterations, validation: of each epoch, to train and to validate.
    """

    epochs: int | None = None
    iterations: int | None = None
    validation: int | None = None


# parts of two kinds that cannot be combined -> why
CONFLICTS: dict[tuple[type, type], str] = {
    (ShowOnly, FuseSkips): "with one modality shown there is no other whose skips could be fused",
    (ShowOnly, FusePairs): "with one modality shown there are no pairs",
    (ShowOnly, SwapStyles): "with one modality shown there is no other whose style a scan could take",
    (PredictAlone, FuseSkips): "predictions of single modalities fuse nothing",
    (PredictAlone, FuseByMean): "predictions of single modalities fuse nothing",
    (PredictAlone, FusePairs): "predictions of single modalities fuse nothing",
    (MMFormer, SeparateModalities): "both arrange the network",
    (MMFormer, PredictAlone): "predictions of single modalities fuse nothing",
    (MMFormer, FuseByMean): "both replace the fusion",
    (FusePairs, Relearning): "voxels of two patients do not correspond",
    (OwnDecoderNorms, SeparateModalities): "separate modalities have decoders of their own already",
    (FusePairs, StrongView): "the strong views are of scans, and fused pairs are rows of two",
    (FusePairs, RandomizeContrast): "the contrast is that of strong views, and fused pairs have none",
    (SwapStyles, FusePairs): "the styles of scans are swapped, and fused pairs are rows of two",
    (SwapStyles, StrongView): "the strong views are of scans, and restyled rows have none",
    (SwapStyles, RandomizeContrast): "the contrast is that of strong views, and restyled rows have none",
    (Teacher, WholeScanLabels): "both label the unlabelled scans",
    (FusePairs, WholeScanLabels): "the labels are of scans, and fused pairs are rows of two",
    (TrainAdapters, ConstantAdam): "adapters are new, and do not learn at the paper's rate for pretrained weights",
}
# a part of one kind -> the kind it needs, and why
NEEDS: dict[type, tuple[type, str]] = {
    Teacher: (StrongView, "a teacher labels what its student sees in a strong view"),
    StrongView: (Teacher, "a strong view is for the student of a teacher"),
    RandomizeContrast: (StrongView, "the contrast of strong views is randomised"),
    SemanticConsistency: (SwapStyles, "it compares scans with their restyled copies"),
    Evidential: (PredictAlone, "Dempster's rule combines the evidence of single modalities"),
    Discounted: (Evidential, "it is the loss of combined evidence"),
    FuseSkips: (SeparateModalities, "a shared decoder gets the mean of the present skips"),
    DecodeAlone: (AuxiliarySupervised, "nothing else trains the decoder of single modalities"),
    AuxiliarySupervised: (DecodeAlone, "it supervises a decoder of single modalities"),
    OwnDecoderNorms: (PredictAlone, "features of several modalities belong to none of them"),
    AreaSimilarity: (PredictAlone, "two predictions from one fused feature agree trivially"),
    Distillation: (PredictAlone, "a prediction from several modalities belongs to none of them"),
    CPS: (PeerSupervised, "two networks without labels cannot supervise each other"),
    PeerSupervised: (WithPeer, "it is the loss of a second network"),
    WithPeer: (CPS, "a second network serves cross pseudo supervision only"),
    ShareEncoder: (SeparateModalities, "otherwise the modalities share an encoder already"),
}


@dataclass(frozen=True)
class Recipe:
    """What a trainer trains, and how.

    Attributes:
        purpose: one line for tables.
        terms: of the loss, with their weights over time.
        network: changes of the plans' network, in this order.
        views: changes of a batch of pairs, in this order.
        fusion: decides which modalities of a labelled row are fused.
        unlabeled_share: number of unlabelled pairs per labelled one in a batch; unused with ``whole_scan_labels``,
            which has its own.
        mirrored_axes: of (D, H, W) as read, unless a class occurs on one side of the body only; on canonical axes the
            last axis is left to right.
        batch_dice: Dice over the rows of a batch (True), of each by itself (False), or as planned (None).
        optimizer: with its schedule.
        teacher: mean teacher that pseudo-labels the unlabelled rows, if any.
        whole_scan_labels: pseudo-labels of whole scans, made in rounds of the training, if any.
        calibrated: whether the modalities' predictions are weighted by their Dice on validation patches, or equally.
        length: of the training.
        differences: of a re-implemented system: what is from its paper, what is simplified, and what is ours.

    Raises:
        ValueError: parts that cannot be combined, that lack another, or that are named twice.
    """

    purpose: str
    terms: tuple[Term, ...]
    network: tuple[NetworkChange, ...] = ()
    views: tuple[View, ...] = ()
    fusion: Fusion = field(default_factory=FuseOrSplit)
    unlabeled_share: float = 1.0
    mirrored_axes: tuple[int, ...] = (LEFT_RIGHT,)
    batch_dice: bool | None = None
    optimizer: AdamW | StockSGD | ByLength | ConstantAdam = field(default_factory=AdamW)
    teacher: Teacher | None = None
    whole_scan_labels: WholeScanLabels | None = None
    calibrated: bool = True
    length: Length = field(default_factory=Length)
    differences: str = ""

    def __post_init__(self):
        kinds = [*(term.loss for term in self.terms), *map(type, (*self.network, *self.views, self.optimizer))]
        labeling = [type(part) for part in (self.teacher, self.whole_scan_labels) if part]
        kinds += labeling
        if twice := [kind.__name__ for kind in kinds if kinds.count(kind) > 1]:
            raise ValueError(f"A recipe names {twice[0]} twice: name it once.")
        conflicts = CONFLICTS | {(ShowOnly, term.loss): term.loss.needs_several for term in self.terms}
        for a, b in combinations(kinds, 2):
            if reason := conflicts.get((a, b)) or conflicts.get((b, a)):
                raise ValueError(f"{a.__name__} and {b.__name__} cannot be combined, since {reason}: leave one out.")
        for kind in kinds:
            needed, reason = NEEDS.get(kind, (None, ""))
            if needed and needed not in kinds:
                raise ValueError(f"{kind.__name__} needs {needed.__name__}, since {reason}: add it.")
        if bool(labeling) != (Pseudo in kinds):
            raise ValueError(
                "Pseudo, the term of the pseudo-labels, and Teacher or WholeScanLabels, which make them, need each "
                "other: add what is missing."
            )
        weights: dict[str, Schedule] = {}
        for term in self.terms:
            if weights.setdefault(term.weight.symbol, term.weight) != term.weight:
                raise ValueError(f"Two weights have the symbol {term.weight.symbol}, and a log has one: rename one.")
        if Supervised not in kinds:
            raise ValueError("A recipe needs Supervised, the term of the labelled scans: add it.")
        if "printed" in [term.form for term in self.terms] and FusePairs not in kinds:
            raise ValueError(
                "The printed form is of registered pairs, which FusePairs makes of all: add it to the views."
            )
        for change in self.network[1:]:
            if isinstance(change, SeparateModalities | MMFormer):
                name = type(change).__name__
                raise ValueError(f"{name} builds the network anew: put it before all other changes.")
        changes = [type(change) for change in self.network]
        copied = changes.index(OwnDecoderNorms) if OwnDecoderNorms in changes else len(changes)
        if late := [change.__name__ for change in changes[copied:] if change in (SuperviseDeep, Evidential)]:
            raise ValueError(f"OwnDecoderNorms copies the decoder: put {late[0]} before it.")
        order = [type(view) for view in self.views]
        if RandomizeContrast in order and order.index(RandomizeContrast) < order.index(StrongView):
            raise ValueError("RandomizeContrast changes strong views: put StrongView before it.")

    @property
    def only_modality(self) -> int | None:
        """The one modality that is trained, or None for all."""
        return next((change.modality for change in self.network if isinstance(change, ShowOnly)), None)

    def uses_unlabeled(self, have_labels: bool = True) -> bool:
        """Tell whether unlabelled scans are trained on, once they have pseudo-labels or while they have none."""
        waiting = self.whole_scan_labels is not None and not have_labels
        return not waiting and any(term.loss.uses_unlabeled for term in self.terms)

    def unlabeled_pairs(self, batch_size: int) -> tuple[int, int]:
        """Return how many unlabelled pairs a batch has, and how many labelled pairs they replace."""
        if self.whole_scan_labels is None:
            return max(1, round(self.unlabeled_share * batch_size)), 0
        replaceable = batch_size - 1
        pairs = max(1, min(replaceable, round(self.whole_scan_labels.share * batch_size)))
        return pairs, min(pairs, replaceable)

    @property
    def pseudo_labels(self) -> bool:
        """Whether unlabelled scans get pseudo-labels."""
        return any(term.loss is Pseudo for term in self.terms)

    @property
    def teacher_weight(self) -> str:
        """Symbol of the weight of the pseudo-label term."""
        return next(term.weight.symbol for term in self.terms if term.loss is Pseudo)

    @property
    def needs_pretrained(self) -> bool:
        """Whether frozen parts would keep random weights without a pretrained file."""
        return any(isinstance(change, TrainAdapters) for change in self.network)

    def _combination(self) -> str:
        kinds = set(map(type, self.network))
        if kinds & {MMFormer, ShowOnly}:
            return "one prediction"
        if Evidential in kinds:
            return "Dempster's rule"
        if kinds & {SeparateModalities, PredictAlone}:
            return "weighted by validation Dice" if self.calibrated else "equal weights"
        weighted = ", features of modalities never registered weighted by validation Dice"
        return f"fused{weighted if self.calibrated else ''}"

    def rows(self) -> dict[str, str]:
        """Return the recipe as text, for tables, logs and checkpoints."""
        dice = {None: "as planned", True: "over the batch", False: "of every sample"}[self.batch_dice]
        length = {"epochs": self.length.epochs, "iterations": self.length.iterations}
        terms = []
        for term in self.terms:
            weight = "" if term.weight.symbol == "1" else f"{term.weight.symbol} = {term.weight.formula}: "
            terms.append(f"{weight}{term.name}{f' ({term.form})' if term.form else ''}")
        return {
            "terms": "; ".join(terms),
            "network": _listed(self.network) or "as planned",
            "views": _listed(self.views) or "pairs",
            "fusion": _short(self.fusion),
            "unlabelled pairs": (
                f"{self.unlabeled_share:g} of the labelled"
                if self.whole_scan_labels is None
                else f"{self.whole_scan_labels.share:g} of a batch, when they have labels"
            ),
            "mirrored axes": ", ".join(map(str, self.mirrored_axes)),
            "Dice": dice,
            "optimizer": _short(self.optimizer),
            "pseudo-labels": _listed(tuple(filter(None, (self.teacher, self.whole_scan_labels)))) or "none",
            "combination": self._combination(),
            "length": ", ".join(f"{n} {what}" for what, n in length.items() if n) or "nnU-Net's",
        }


def _listed(parts: tuple) -> str:
    return ", then ".join(map(_short, parts))


def _short(part: object) -> str:
    rounded = re.sub(r"\d\.\d{4,}", lambda number: f"{float(number[0]):.3g}", repr(part))
    return rounded.removesuffix("()")
