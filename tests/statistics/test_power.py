"""Power against the noncentral t, against simulation, and in its directions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subspace.statistics.crossed import crossed
from subspace.statistics.power import Noise, detectable_difference, noise_of, plan_power, power_of

NOISE = Noise(seed=0.008**2, item=0.25**2, rest=0.4**2)


@pytest.mark.parametrize(("seeds", "difference", "alpha"), [(3, 2.0, 0.05), (5, 1.5, 0.005), (10, 1.0, 0.05)])
def test_one_score_a_run_is_the_noncentral_t(seeds: int, difference: float, alpha: float) -> None:
    critical, shift = stats.t.isf(alpha / 2, seeds - 1), difference * seeds**0.5
    truth = stats.nct.sf(critical, seeds - 1, shift) + stats.nct.cdf(-critical, seeds - 1, shift)
    found = power_of(difference, Noise(1.0, 0.0, 0.0, "seeds"), seeds=seeds, items=1, alpha=alpha)
    assert found == pytest.approx(float(truth), abs=1e-3)


def test_one_seed_is_the_noncentral_t_over_items() -> None:
    critical = stats.t.isf(0.025, 39)
    truth = stats.nct.sf(critical, 39, 2.5)
    found = power_of(2.5 / 40**0.5, Noise(0.0, 1.0, 0.0, "items"), seeds=1, items=40)
    assert found == pytest.approx(float(truth), abs=1e-3)


def test_without_a_difference_power_is_at_most_the_level() -> None:
    assert power_of(0.0, Noise(1.0, 0.0, 0.0, "seeds"), seeds=4, items=1) == pytest.approx(0.05, abs=1e-3)
    assert 0.02 < power_of(0.0, NOISE, seeds=5, items=500) < 0.05


@settings(max_examples=25, deadline=None)
@given(st.floats(0.001, 0.1), st.integers(2, 9), st.integers(50, 3000))
def test_more_of_anything_is_found_more_often(difference: float, seeds: int, items: int) -> None:
    base = power_of(difference, NOISE, seeds=seeds, items=items)
    assert power_of(1.2 * difference, NOISE, seeds=seeds, items=items) >= base
    assert power_of(difference, NOISE, seeds=seeds + 1, items=items) >= base - 1e-6
    assert power_of(difference, NOISE, seeds=seeds, items=2 * items) >= base - 1e-6
    assert power_of(difference, NOISE, seeds=seeds, items=items, alpha=0.01) <= base
    assert power_of(-difference, NOISE, seeds=seeds, items=items) == pytest.approx(base)


def test_the_detectable_difference_is_found_with_four_fifths() -> None:
    difference = detectable_difference(NOISE, seeds=5, items=800, alpha=0.01)
    assert power_of(difference, NOISE, seeds=5, items=800, alpha=0.01) == pytest.approx(0.8, abs=1e-4)


def _spreads(seeds: int, items: int, count: int = 4) -> list:  # type: ignore[type-arg]
    generator = np.random.default_rng(0)
    return [
        crossed(
            generator.normal(scale=0.01, size=(seeds, 1))
            + generator.normal(scale=0.1, size=(1, items))
            + generator.normal(scale=0.2, size=(seeds, items))
        )
        for _ in range(count)
    ]


def test_the_numbers_needed_are_the_smallest_that_do() -> None:
    power = plan_power(_spreads(5, 400), seeds=5, items=400, level=0.95, hypotheses=3, one_point=0.03)
    noise = noise_of(_spreads(5, 400))
    assert noise is not None
    assert power.alpha == pytest.approx(0.05 / 3)
    assert power.seeds_needed is not None
    assert power.items_needed is not None

    def found(seeds: int, items: int) -> float:
        return power_of(0.03, noise, seeds=seeds, items=items, alpha=power.alpha)

    assert found(power.seeds_needed, 400) >= 0.8 > found(power.seeds_needed - 1, 400)
    assert found(5, power.items_needed) >= 0.8 > found(5, power.items_needed - 1)
    assert power.detectable_alone is not None
    assert power.detectable is not None
    assert power.detectable_alone < power.detectable
    row = next(row for row in power.table if (row.seeds, row.items) == (5, 400) and row.difference == 0.03)
    assert row.power == pytest.approx(found(5, 400))
    assert (power.num_seeds, power.num_items) == (5, 400)


def test_what_no_number_of_items_shows_is_none() -> None:
    """Seed noise of three points: no test set makes five seeds show one."""
    spreads = [crossed(np.array([-0.05, 0.03, 0.0, 0.04, -0.02])[:, None] + np.zeros((5, 300)))]
    power = plan_power(spreads, seeds=5, items=300, level=0.95, hypotheses=1, one_point=0.01)
    assert power.items_needed is None
    assert power.seeds_needed is not None
    assert power.seeds_needed > 50
    assert power.seed_std == pytest.approx(0.0370, abs=1e-3)


def test_one_item_and_one_seed_are_planned_with_what_is_known() -> None:
    over_seeds = plan_power(
        [crossed(np.array([[0.1], [0.12], [0.11]]))], seeds=3, items=1, level=0.95, hypotheses=1, one_point=0.01
    )
    assert over_seeds.items_needed is None
    assert over_seeds.item_std is None
    assert over_seeds.seed_std == pytest.approx(0.01)
    over_items = plan_power(
        [crossed(np.random.default_rng(0).normal(size=(1, 90)))],
        seeds=1,
        items=90,
        level=0.95,
        hypotheses=1,
        one_point=0.5,
    )
    assert over_items.seeds_needed is None
    assert over_items.seed_std is None
    assert over_items.items_needed is not None
    nothing = plan_power([crossed(np.ones((1, 1)))], seeds=1, items=1, level=0.95, hypotheses=1, one_point=0.01)
    assert nothing.detectable is None
    assert nothing.table == ()


def test_noise_below_zero_weighs_before_it_is_cut() -> None:
    low = crossed(np.array([[1.0, -1.0], [-1.0, 1.0]]))
    assert low.seed_variance < 0.0
    high = crossed(np.array([[2.0, 2.0], [-1.0, -1.0]]))
    noise = noise_of([low, high])
    assert noise is not None
    assert noise.seed == pytest.approx((low.seed_variance + high.seed_variance) / 2)
    assert noise_of([low]).seed == 0.0  # type: ignore[union-attr]
