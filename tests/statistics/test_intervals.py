"""Intervals and p values against scipy's t tests, and each against the other."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subspace.core.errors import UsageError
from subspace.statistics.crossed import crossed, unpaired
from subspace.statistics.intervals import METHODS, deviation_interval, p_value, t_interval

FIRST = np.array([0.71, 0.74, 0.69, 0.75, 0.72])
SECOND = np.array([0.70, 0.70, 0.68, 0.71, 0.72])


def test_one_score_a_run_is_the_paired_t_test() -> None:
    spread = crossed((FIRST - SECOND)[:, None])
    truth = stats.ttest_rel(FIRST, SECOND)
    ends = truth.confidence_interval(0.9)
    interval = t_interval(spread, 0.9)
    assert p_value(spread) == pytest.approx(truth.pvalue)
    assert (interval.low, interval.high) == pytest.approx((ends.low, ends.high))
    assert interval.method == "t over seeds"


def test_one_seed_is_the_t_test_over_items() -> None:
    spread = crossed((FIRST - SECOND)[None])
    assert p_value(spread) == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue)
    assert t_interval(spread).method == "t over items"


def test_unpaired_scores_are_welchs_test() -> None:
    spread = unpaired(FIRST[:, None], SECOND[:3, None])
    truth = stats.ttest_ind(FIRST, SECOND[:3], equal_var=False)
    assert p_value(spread) == pytest.approx(truth.pvalue)


@pytest.mark.parametrize("side", ["greater", "less"])
def test_one_sided(side: str) -> None:
    spread = crossed((FIRST - SECOND)[:, None])
    truth = stats.ttest_rel(FIRST - 0.01, SECOND, alternative=side)
    assert p_value(spread, 0.01, side=side) == pytest.approx(truth.pvalue)


def test_seeds_without_item_noise_decide_alone() -> None:
    """Every item moves with its seed: more items change nothing."""
    shifts = (FIRST - SECOND)[:, None]
    many = crossed(np.repeat(shifts, 300, axis=1))
    assert p_value(many) == pytest.approx(stats.ttest_rel(FIRST, SECOND).pvalue)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5), st.integers(2, 40), st.sampled_from([0.8, 0.95, 0.99]))
def test_the_interval_holds_zero_exactly_where_p_says_so(seed: int, seeds: int, items: int, level: float) -> None:
    generator = np.random.default_rng(seed)
    table = generator.normal(loc=0.4, size=(seeds, items)) + generator.normal(scale=0.3, size=(seeds, 1))
    spread = crossed(table)
    interval = t_interval(spread, level)
    assert (interval.low <= 0.0 <= interval.high) == (p_value(spread) >= 1.0 - level)
    # the p value of either end is 1 - level
    for end in (interval.low, interval.high):
        assert p_value(spread, end) == pytest.approx(1.0 - level, rel=1e-3)


def test_higher_levels_are_wider() -> None:
    spread = crossed(np.random.default_rng(0).normal(size=(3, 20)))
    widths = [t_interval(spread, level).high - t_interval(spread, level).low for level in (0.5, 0.9, 0.95, 0.999)]
    assert widths == sorted(widths)


def test_nothing_repeated_knows_nothing() -> None:
    spread = crossed(np.array([[0.4]]))
    interval = t_interval(spread)
    assert (interval.low, interval.high, interval.method) == (-math.inf, math.inf, "not repeated")
    assert p_value(spread) == 1.0
    bounded = t_interval(spread, bounds=(0.0, 1.0))
    assert (bounded.low, bounded.high) == (0.0, 1.0)


def test_equal_differences_prove_only_what_a_sign_test_does() -> None:
    assert p_value(crossed(np.full((3, 1), 0.5))) == pytest.approx(0.25)
    assert p_value(crossed(np.full((3, 1), 0.5)), side="greater") == pytest.approx(0.125)
    assert p_value(crossed(np.full((3, 1), 0.5)), side="less") == 1.0
    assert p_value(crossed(np.zeros((3, 4)))) == 1.0
    # sums in floating point differ by their rounding, which is no variation
    uneven = (np.array([[0.1], [0.7], [0.3]]) + 0.2) - np.array([[0.1], [0.7], [0.3]])
    assert np.ptp(uneven) > 0.0
    assert p_value(crossed(uneven)) == pytest.approx(0.25)


def test_the_deviation_interval_is_chi_square() -> None:
    interval = deviation_interval(FIRST, 0.8)
    s = float(FIRST.std(ddof=1))
    assert interval.estimate == pytest.approx(s)
    assert stats.chi2.cdf(4 * s**2 / interval.low**2, 4) == pytest.approx(0.9)
    assert stats.chi2.cdf(4 * s**2 / interval.high**2, 4) == pytest.approx(0.1)
    assert deviation_interval(FIRST[:1]).high == math.inf


def test_methods_are_listed() -> None:
    assert t_interval(crossed(np.eye(3))).method in METHODS
    assert t_interval(unpaired(np.eye(3), np.eye(3)[:2])).method in METHODS


@pytest.mark.parametrize("level", [0.0, 1.0, 95.0, -0.5])
def test_a_level_is_a_share(level: float) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        t_interval(crossed(np.eye(3)), level)
