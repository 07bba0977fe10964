from itertools import pairwise

import pytest

from nnunet_cmc.losses import alpha, beta
from nnunet_cmc.losses.schedules import ALPHA, BETA, DELTA, GAMMA, KAPPA, LAMBDA, OMEGA, SMALL_ALPHA, SMALL_BETA


def test_numbers_of_the_paper():
    assert [alpha(t, 200) for t in (0, 100, 200)] == pytest.approx([6.7379e-4, 8.2085e-3, 0.1], rel=1e-4)
    assert [beta(t, 200) for t in (0, 100, 200)] == pytest.approx([0.1, 8.2085e-3, 6.7379e-4], rel=1e-4)


@pytest.mark.parametrize(("small", "paper"), [(SMALL_ALPHA, ALPHA), (SMALL_BETA, BETA)])
def test_a_tenth_of_the_papers(small, paper):
    assert [10 * small.at(t, 7) for t in range(8)] == pytest.approx([paper.at(t, 7) for t in range(8)])
    assert small.symbol == paper.symbol
    assert small.formula == paper.formula.replace("0.1 ", "0.01 ")


def test_a_teacher_is_silent_for_a_fifth_and_speaks_up_over_a_quarter():
    weights = [GAMMA.at(t, 100) for t in range(101)]
    assert weights[:21] == [0.0] * 21
    assert all(a < b for a, b in pairwise(weights[20:46]))
    assert weights[45:] == [1.0] * 56
    assert weights[25] == pytest.approx(2.718281828 ** (-5 * 0.8**2))


def test_relearning_begins_at_half_time_and_rises_as_a_teacher_does():
    assert [OMEGA.at(t, 100) for t in range(51)] == [0.0] * 51
    assert [OMEGA.at(t + 30, 100) for t in range(71)] == pytest.approx([GAMMA.at(t, 100) for t in range(71)])


@pytest.mark.parametrize("weight", [DELTA, KAPPA])
def test_a_constant_weight_is_what_its_formula_says(weight):
    assert [weight.at(t, 9) for t in range(10)] == [float(weight.formula)] * 10


def test_a_consistency_rises_as_a_gaussian():
    assert [LAMBDA.at(t, 10) for t in (0, 5, 10)] == pytest.approx([0.1 * 0.0067379, 0.1 * 0.2865048, 0.1], rel=1e-5)
