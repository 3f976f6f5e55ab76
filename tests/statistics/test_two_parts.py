"""The sum of two Student variables against scipy, sampling and its limits."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from subspace.statistics.two_parts import critical_width, upper_tail


@pytest.mark.parametrize("degrees", [1, 2, 4, 9, 100])
@pytest.mark.parametrize("gap", [0.5, 2.0, 5.0, 12.0])
def test_one_part_is_student(degrees: int, gap: float) -> None:
    truth = stats.t.sf(gap, degrees)
    assert float(upper_tail(gap, 1.0, 0.0, (degrees, 500))) == pytest.approx(truth, rel=5e-4)
    assert float(upper_tail(gap, 0.0, 1.0, (4, degrees))) == pytest.approx(truth, rel=2e-3)


def test_two_parts_are_the_sum_of_two_student_variables() -> None:
    generator = np.random.default_rng(0)
    sums = 1.2 * generator.standard_t(4, 1_000_000) + 0.7 * generator.standard_t(15, 1_000_000)
    for gap in (0.5, 2.0, 5.0):
        truth = float((sums > gap).mean())
        found = float(upper_tail(gap, 1.44, 0.49, (4, 15)))
        assert found == pytest.approx(truth, abs=4 * (truth / 1e6) ** 0.5)


def test_the_critical_width_is_where_the_tail_has_that_probability() -> None:
    seed_parts = np.array([0.0, 0.3, 1.0, 50.0])
    for probability in (0.025, 0.0005):
        width = critical_width(probability, seed_parts, 0.8, (4, 300))
        assert upper_tail(width, seed_parts, 0.8, (4, 300)) == pytest.approx(probability, rel=1e-5)
        assert (np.diff(width) > 0).all()


def test_a_part_known_badly_widens_what_a_pooled_t_would_say() -> None:
    """Ten times the items' part with 2 degrees of freedom: nearly the quantile of t with 2, not of many more."""
    width = float(critical_width(0.0025, 1.0, 0.1, (2, 1000)))
    assert width == pytest.approx(float(stats.t.isf(0.0025, 2)), rel=0.01)
