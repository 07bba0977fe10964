"""Differences paired by subject, and their intervals over seeds and subjects."""

from itertools import product

import numpy as np
import pytest
from intervals import paired_difference
from scipy.stats import bootstrap


def nested(differences, draws, rng):
    """Means of the nested bootstrap, drawn in loops."""
    return [
        np.mean([np.mean(rng.choice(differences[rng.integers(len(differences))], differences.shape[1]))
                 for _ in differences])
        for _ in range(draws)
    ]  # fmt: skip


def test_intervals_are_those_of_a_nested_bootstrap():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(50, 10, (5, 20)) + rng.normal(0, 4, (5, 1)), rng.normal(45, 10, (5, 20))
    difference = paired_difference(ours, theirs)
    assert difference.mean == pytest.approx((ours - theirs).mean())
    expected = np.percentile(nested(ours - theirs, 2000, rng), [2.5, 97.5])
    assert [difference.low, difference.high] == pytest.approx(expected, abs=0.5)
    spread = np.sqrt(((ours - theirs).mean(1).var() + (ours - theirs).var(1).mean() / 20) / 5)  # in closed form
    assert difference.high - difference.low == pytest.approx(2 * 1.96 * spread, rel=0.05)


def test_intervals_of_two_subjects_of_two_seeds():
    """Against all that can be drawn: each of two draws is a seed and two of its subjects."""
    differences = np.array([[1.0, 2.0], [4.0, 9.0]])
    drawn = [np.mean(pair) for row in differences for pair in product(row, row)]
    low, high = np.percentile([np.mean(pair) for pair in product(drawn, drawn)], [2.5, 97.5])
    difference = paired_difference(differences, np.zeros((2, 2)))
    assert (difference.low, difference.high) == pytest.approx((low, high), abs=0.3)
    assert difference.excludes_zero
    assert difference.spread == "3.5"  # of 1.5 and 6.5


def test_one_seed_shows_no_difference():
    """However alike its subjects are: other seeds may be on the other side."""
    dice = np.random.default_rng(0).normal(60, 5, (1, 20))
    difference = paired_difference(dice, np.full((1, 20), 50.0))
    expected = bootstrap((dice[0] - 50,), np.mean, method="percentile", rng=0).confidence_interval
    assert (difference.low, difference.high) == pytest.approx(tuple(expected), abs=0.1)
    assert difference.low > 0
    assert difference.spread == ""
    assert not difference.excludes_zero
    assert str(paired_difference([[60.0, 61.0]], [[50.0, 51.0]])) == "one seed (+10.0 [+10.0, +10.0])"
    assert str(paired_difference([[60.0, 61.0]] * 2, [[50.0, 51.0]] * 2)) == "+10.0 [+10.0, +10.0]"
    assert str(paired_difference([[60.0, 40.0]] * 2, [[50.0, 51.0]] * 2)).startswith("none (-0.5 [-11.0, ")


@pytest.mark.parametrize(
    ("seeds", "spread_of_seeds", "expected"),
    [
        (5, 0.0, 0.98), (5, 2.0, 0.97), (5, 4.0, 0.92), (5, 8.0, 0.88),
        (3, 0.0, 0.97), (3, 2.0, 0.94), (3, 4.0, 0.89), (3, 8.0, 0.82),
        (2, 0.0, 0.96), (2, 2.0, 0.92), (2, 4.0, 0.84), (2, 8.0, 0.72),
    ],
)  # fmt: skip
def test_how_often_an_interval_holds_the_true_difference(seeds, spread_of_seeds, expected):
    """Of so many seeds of 20 subjects that differ by 12 points: as docs/results.md says."""
    rng = np.random.default_rng(1)
    drawn = rng.normal(0, spread_of_seeds, (300, seeds, 1)) + rng.normal(0, 12, (300, seeds, 20))
    holds = [difference.low <= 0 <= difference.high for each in drawn
             for difference in [paired_difference(each, np.zeros_like(each), draws=500)]]  # fmt: skip
    assert np.mean(holds) == pytest.approx(expected, abs=0.035)
