import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nnunet_cmc.data.loading.batch import Batch
from nnunet_cmc.networks import CMCOutput
from nnunet_cmc.trainers.terms import Relearning, Setting


def term_of(*dice: float) -> Relearning:
    term = Relearning(Setting(len(dice), num_classes=3, num_channels=1, batch_dice=True))
    term.dice.copy_(torch.tensor(dice))
    return term


def output_of(present: list[list[bool]], seed: int = 0) -> CMCOutput:
    rows, modalities = len(present), len(present[0])
    logits = 3 * torch.randn(rows, modalities, 3, 2, 3, 4, generator=torch.Generator().manual_seed(seed))
    return CMCOutput(logits.requires_grad_(), torch.zeros(rows, modalities, 1, 1, 1, 1), torch.tensor(present))


def run(term: Relearning, output: CMCOutput, labeled: int = 0) -> torch.Tensor:
    nothing = torch.zeros(len(output.logits))
    return term(output, Batch(nothing, torch.zeros(labeled), nothing, nothing, nothing))


def expected_of(logits: np.ndarray, lessons: list[tuple[int, int, int]]) -> float:
    """Of (row, teacher, student), in loops over classes."""
    entropies, overlaps = [], []
    for row, teacher, student in lessons:
        p, q = (np.exp(logits[row, m]) / np.exp(logits[row, m]).sum(0) for m in (teacher, student))
        entropies.append(-(p * np.log(q)).sum(0).mean())
        shown = [k for k in (1, 2) if max(p[k].max(), q[k].max()) > 1 / 3]
        dice = [2 * (p[k] * q[k]).sum() / ((p[k] ** 2).sum() + (q[k] ** 2).sum()) for k in shown]
        overlaps += [np.mean(dice)] if dice else []
    return np.mean(entropies) + (1 - np.mean(overlaps) if overlaps else 0)


@settings(deadline=None, max_examples=20)
@given(
    st.lists(st.lists(st.booleans(), min_size=3, max_size=3), min_size=1, max_size=4),
    st.permutations([0.3, 0.5, 0.8]),
    st.integers(0, 1),
    st.integers(0, 100),
)
def test_the_best_modality_of_a_row_teaches_its_others(present, dice, labeled, seed):
    output = output_of(present, seed)
    lessons = []
    for row, has in enumerate(present):
        there = [m for m in range(3) if has[m]]
        if row >= labeled and len(there) > 1:
            teacher = max(there, key=lambda m: dice[m])
            lessons += [(row, teacher, m) for m in there if m != teacher]
    value = run(term_of(*dice), output, labeled)
    expected = expected_of(output.logits.detach().numpy(), lessons) if lessons else 0
    assert value.item() == pytest.approx(expected, rel=1e-4)
    (gradient,) = torch.autograd.grad(value, output.logits)
    learned = {(row, m) for row, m in np.ndindex(len(present), 3) if gradient[row, m].any()}
    assert learned == {(row, student) for row, _, student in lessons}, "who teaches gets no gradient"


def test_rows_without_foreground_teach_background_and_have_no_dice():
    output = output_of([[True, True]])
    background = torch.tensor([9.0, -9.0, -9.0])[None, None, :, None, None, None] + 0 * output.logits
    value = run(term_of(0.5, 0.4), output._replace(logits=background))
    assert value.item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("dice", [(0.0, 0.0), (0.5, 0.4)])
def test_an_exact_zero_with_a_graph_before_the_first_validation_and_for_rows_of_one_modality(dice):
    output = output_of([[True, True], [True, False], [False, True]])
    value = run(term_of(*dice), output, labeled=0 if dice == (0.0, 0.0) else 1)
    value.backward()
    assert value == 0
    assert not output.logits.grad.any()


def test_half_precision_is_compared_in_float32():
    output = output_of([[True, True]] * 2)
    half = output._replace(logits=output.logits.detach().bfloat16())
    with torch.autocast("cpu", torch.bfloat16):
        found = run(term_of(0.2, 0.4), half)
    assert found.dtype == torch.float32
    assert found.equal(run(term_of(0.2, 0.4), half._replace(logits=half.logits.float())))


def confusion_of(*hits: int) -> np.ndarray:
    """Of each modality so many of 10 voxels of class 1, and nothing of class 2; 0: it has no such case."""
    return np.array([[[90, 0, 0], [10 - hit, hit, 0], [0, 0, 0]] if hit else np.zeros((3, 3)) for hit in hits])


def dice_of(hits: int) -> float:
    return 2 * hits / (10 + hits)


def test_the_dice_follows_validation_and_is_saved():
    term = term_of(0.0, 0.0)
    term.validated(confusion_of(4, 0))
    assert term.dice.tolist() == pytest.approx([dice_of(4), 0])
    term.validated(confusion_of(8, 6))
    expected = [(dice_of(4) + dice_of(8)) / 2, dice_of(6)]
    assert term.dice.tolist() == pytest.approx(expected)
    other = term_of(0.0, 0.0)
    other.load_state_dict(term.state_dict())
    assert other.dice.equal(term.dice)
    term.validated(confusion_of(0, 0))
    assert term.dice.tolist() == pytest.approx(expected), "nothing was validated"
