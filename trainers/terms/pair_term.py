"""Terms between modalities, with the form of the consistency loss for each kind of pair."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, nn

from nnunet_cmc.losses import CACLoss, CSCLoss, Similarity
from nnunet_cmc.losses.ranks import totals
from nnunet_cmc.trainers.terms.loss_term import LossTerm, Setting


class PairTerm(LossTerm):
    """A term over pairs of modalities.

    A pair whose modalities are one row is registered and gets the ``paired`` form (or the ``printed`` one, exactly as
    in the paper); two rows are different grids and get the ``unpaired`` form, whose bank is the term's state.

    Args:
        setting: sizes of the bank.
        form: ``aligning`` (by pair, paired or unpaired), or ``printed``, for registered pairs alone.

    Attributes:
        loss: compares the modalities.
        options: of the loss, in all forms.
        bank: names of the sizes of its bank.
        forms: the losses by form.
    """

    compares = True
    loss: ClassVar[type[CACLoss | CSCLoss]]
    options: ClassVar[Mapping[str, Any]] = MappingProxyType({})
    bank: ClassVar[tuple[str, ...]]

    def __init__(self, setting: Setting, form: str = "aligning"):
        super().__init__()
        if form == "printed":
            self.forms = nn.ModuleDict({"paired": self.loss("printed", **self.options)})
            return
        sizes = {size: getattr(setting, size) for size in self.bank}
        self.forms = nn.ModuleDict(
            {"paired": self.loss("paired", **self.options), "unpaired": self.loss("unpaired", **sizes, **self.options)}
        )

    def mean(self, inputs: Tensor, n_paired: float, paired: Callable, n_unpaired: float, unpaired: Callable) -> Tensor:
        """Compute the mean over the pairs of both forms and all ranks; a form without a pair on any rank is not called.

        Args:
            inputs: with a graph, for an exact 0 where there is no pair.
            n_paired, n_unpaired: numbers of this rank's pairs.
            paired, unpaired: compute the loss of each form over all ranks' pairs.
        """
        counts = totals([n_paired, n_unpaired], inputs.device)
        computed = zip(("paired", "unpaired"), counts, (paired, unpaired), strict=True)
        losses = {form: (count, loss()) for form, count, loss in computed if count}
        unknown = inputs.new_full((1,), torch.nan)
        seen = [cast(Similarity, self.forms[form].similarity) for form in losses] or [Similarity(unknown, unknown)]
        self.similarity = Similarity(*(torch.stack(each).nanmean() for each in zip(*seen, strict=True)))
        return sum(count * loss for count, loss in losses.values()) / sum(counts) if losses else inputs[:0].sum()


def rows_by_form(pairs: Tensor) -> tuple[Tensor, Tensor]:
    """Split ``pairs (P, M)``: rows of registered pairs (one row shows several modalities), and rows of all others."""
    there = pairs >= 0
    first = pairs.amax(1, keepdim=True)
    one_row = ((pairs == first) | ~there).all(1)
    several = there.sum(1) > 1
    registered = first[one_row & several, 0]
    others = pairs[~one_row & several]
    return registered, others[others >= 0]
