"""Every term of the loss on two ranks (gloo) against one process with the rows of both, and what is sent for it."""

import os
from dataclasses import replace
from itertools import accumulate

import pytest
import torch
from messages import Sent
from processes import clean_process
from torch import Tensor

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.networks.peer import PEER
from nnunet_cmc.trainers import terms
from nnunet_cmc.trainers.terms import LossTerm, Setting

K, C = 3, 4
PAIRED = terms.CAC, terms.CSC, terms.AreaSimilarity
OF_DICE = terms.Supervised, terms.AuxiliarySupervised, terms.Pseudo, terms.Discounted, terms.CPS
TERMS = {
    " ".join((cls.name, *form, "over the batch" if batch_dice else "by sample")): (cls, form, batch_dice)
    for cls in map(vars(terms).get, terms.__all__)
    if isinstance(cls, type) and issubclass(cls, LossTerm) and cls is not LossTerm
    for form in ((("aligning",), ("printed",)) if cls in PAIRED else ((),))
    for batch_dice in ((True, False) if cls in OF_DICE else (True,))
}
# rows of each rank: labelled and unlabelled, what each shows, and their pairs
RANKS = {
    "mixed": [
        ([[1, 1], [1, 1], [1, 0]], [[1, 1], [0, 1], [1, 0]], [[0, 0], [1, 1], [2, -1], [3, 3], [5, 4]]),
        ([[0, 1]], [[1, 1], [1, 1], [0, 1]], [[-1, 0], [1, 1], [2, 2], [-1, 3]]),
    ],
    "one has no unlabelled rows": [
        ([[1, 1]], [[1, 1], [1, 0], [0, 1]], [[0, 0], [1, 1], [2, 3]]),
        ([[1, 1]], [], [[0, 0]]),
    ],
    "one sees nothing": [([[1, 1], [0, 1]], [[1, 1]], [[0, 0], [-1, 1], [2, 2]]), ([[0, 0]], [[0, 0]], [[-1, -1]])],
    "no pairs": [([[1, 0]], [[1, 0]], [[0, -1], [1, -1]]), ([[1, 0]], [[1, 0]], [[0, -1], [1, -1]])],
    "two of three": [([[1, 1, 0], [0, 1, 1]], [], [[0, 0, -1], [-1, 1, 1]]), ([[1, 0, 1]], [], [[0, -1, 0]])],
    "one has three of three": [([[1, 1, 0]], [], [[0, 0, -1]]), ([[1, 1, 1], [1, 1, 0]], [], [[0, 0, 0], [1, 1, -1]])],
}  # fmt: skip
RANK = """
import sys
import torch
import torch.distributed as dist
sys.path.insert(0, here)
from test_ranks import TERMS, RANKS, bytes_sent, computed, rows_of_rank
torch.set_num_threads(1)
dist.init_process_group("gloo", init_method=f"file://{work}/store", rank=rank, world_size=2)
found = {name: {case: computed(name, rows_of_rank(case, rank)) for case in RANKS} for name in TERMS}
sent = {name: [bytes_sent(name, rows_of_rank("mixed", rank, side)) for side in (16, 20)] for name in TERMS}
torch.save((found, sent), f"{work}/{rank}.pt")
dist.destroy_process_group()
"""


def rows_of_rank(case: str, rank: int, side: int = 4) -> tuple[CMCOutput, Batch]:
    """Random predictions, labels and pairs of one rank; registered rows also teach each other as styles."""
    labeled, hidden, pairs = RANKS[case][rank]
    draw = torch.Generator().manual_seed(rank)
    present = torch.tensor([*labeled, *hidden], dtype=torch.bool)
    (n, m), size, coarse = present.shape, [side] * 3, [side // 2] * 3

    def logits(*shape: int) -> Tensor:
        there = (
            present.reshape(n, *shape[: len(shape) - 1], *[1] * 4)
            if len(shape) > 1
            else present.any(1).view(n, *[1] * 4)
        )
        return (3 * torch.randn(n, *shape, *size, generator=draw) * there).requires_grad_()

    swaps = [[[row, -1], [-1, row]] for row, shown in enumerate(present) if m == 2 and shown.all()]
    output = CMCOutput(
        logits(m, K), torch.randn(n, m, C, *coarse, generator=draw).requires_grad_(), present, (logits(m, K),),
        {"alone": (logits(m, K),), "combined": (logits(K),), PEER: (logits(m, K), logits(m, K))},
    )  # fmt: skip
    batch = Batch(
        torch.zeros(n, m, *size), torch.randint(K, (len(labeled), 1, *size), generator=draw),
        present[:, None] & present[:, :, None], torch.tensor(pairs), torch.rand(n, 3, *coarse, generator=draw),
        pseudo_targets=torch.randint(K + 1, (len(hidden), 1, *size), generator=draw),
        swaps=torch.tensor(swaps, dtype=torch.long).reshape(-1, 2, m),
        pseudo_weights=torch.rand(len(hidden), generator=draw),
    )  # fmt: skip
    return output, batch


def together(ranks: list[tuple[CMCOutput, Batch]]) -> tuple[CMCOutput, Batch, list[Tensor]]:
    """The rows of all ranks as those of one batch, labelled ones first, and which of its rows each rank has."""
    outputs, batches = zip(*ranks, strict=True)
    labeled = [batch.n_labeled for batch in batches]
    hidden = [len(batch.data) - n for batch, n in zip(batches, labeled, strict=True)]
    first, then = ([0, *accumulate(part)] for part in (labeled, hidden))
    rows = [
        torch.cat([torch.arange(first[r], first[r + 1]), sum(labeled) + torch.arange(then[r], then[r + 1])])
        for r in range(len(ranks))
    ]
    order = torch.cat(rows).argsort()
    numbers = [torch.cat([of_rank, torch.tensor([-1])]) for of_rank in rows]  # the last one is what -1 picks

    def joined(*parts: Tensor) -> Tensor:
        return torch.cat([part.detach() for part in parts])[order].requires_grad_(parts[0].requires_grad)

    def of_batches(name: str) -> Tensor:
        return torch.cat([getattr(batch, name) for batch in batches])

    def renumbered(name: str) -> Tensor:
        return torch.cat([new[getattr(batch, name)] for new, batch in zip(numbers, batches, strict=True)])

    output = CMCOutput(
        *map(joined, *(output[:3] for output in outputs)),
        deep=tuple(map(joined, *(output.deep for output in outputs))),
        auxiliary={name: tuple(map(joined, *(o.auxiliary[name] for o in outputs))) for name in outputs[0].auxiliary},
    )
    batch = replace(
        batches[0],
        **{name: of_batches(name)[order] for name in ("data", "fusion", "positions")},
        **{name: of_batches(name) for name in ("target", "pseudo_targets", "pseudo_weights")},
        **{name: renumbered(name) for name in ("pairs", "swaps")},
    )
    return output, batch, rows


def differentiable(output: CMCOutput) -> dict[str, Tensor]:
    named = {"logits": output.logits, "features": output.features, "deep": output.deep[0]}
    return named | {f"{name} {i}": part for name, parts in output.auxiliary.items() for i, part in enumerate(parts)}


def built(name: str, modalities: int) -> LossTerm:
    cls, form, batch_dice = TERMS[name]
    term = cls(Setting(modalities, K, C, batch_dice), *form)
    term.progress = 0.5
    if isinstance(term, terms.Relearning):
        term.dice.copy_(torch.linspace(0.5, 0.7, modalities))
    return term


def computed(name: str, rows: tuple[CMCOutput, Batch]) -> tuple[list[Tensor], dict[str, Tensor], dict, list]:
    """The loss, twice where banks move; the gradient of the last at everything; the banks; the similarities."""
    term, inputs = built(name, rows[0].present.shape[1]), differentiable(rows[0])
    if "printed" in TERMS[name][1]:  # which is of registered pairs alone
        rows = rows[0], replace(rows[1], pairs=rows[1].pairs[rows[1].pairs[:, 0] == rows[1].pairs[:, 1]])
    losses = [term(*rows) for _ in range(2 if term.compares else 1)]
    gradients = torch.autograd.grad(losses[-1], [*inputs.values()], allow_unused=True, materialize_grads=True)
    state = {key: value.clone() for key, value in term.state_dict().items()}
    similarity = [] if term.similarity is None else [*term.similarity]
    return [loss.detach() for loss in losses], dict(zip(inputs, gradients, strict=True)), state, similarity


def bytes_sent(name: str, rows: tuple[CMCOutput, Batch]) -> int:
    """Of tensors that collective operations are given, forward and backward."""
    with Sent() as sent:
        computed(name, rows)
    return sent.bytes


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    work = tmp_path_factory.mktemp("ranks")
    processes = [clean_process(RANK, work=str(work), here=os.path.dirname(__file__), rank=rank) for rank in range(2)]
    for process in processes:
        process.join(200)
        process.kill()
        assert process.exitcode == 0
    return [torch.load(work / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("case", RANKS)
@pytest.mark.parametrize("name", TERMS)
def test_a_term_of_two_ranks_is_that_of_all_rows(ranks, name, case):
    output, batch, rows = together([rows_of_rank(case, rank) for rank in range(2)])
    losses, gradients, state, similarity = computed(name, (output, batch))
    assert case != "mixed" or losses[0] != 0
    for rank, (found, _) in enumerate(ranks):
        theirs, theirs_gradients, theirs_state, theirs_similarity = found[name][case]
        torch.testing.assert_close(theirs, losses)
        torch.testing.assert_close(theirs_state, state)
        torch.testing.assert_close(theirs_similarity, similarity, equal_nan=True)
        for part, gradient in gradients.items():  # DistributedDataParallel divides by the number of ranks
            torch.testing.assert_close(theirs_gradients[part] / 2, gradient[rows[rank]], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("name", TERMS)
def test_what_is_sent_does_not_grow_with_the_patch(ranks, name):
    for _, sent in ranks:
        small, large = sent[name]
        assert 0 < small == large < 2**21
