"""The parts of the variance of a mean over seeds and items, against analysis of variance by hand and known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.statistics.crossed import PSEUDO_DIFFERENCE, crossed, linearised, unpaired

TABLE = np.array([[1.0, 2.0, 4.0, 3.0], [2.0, 2.5, 5.0, 4.5], [0.0, 1.0, 2.0, 3.0]])


def test_parts_are_those_of_the_two_way_analysis_of_variance() -> None:
    import pandas
    from statsmodels.formula.api import ols
    from statsmodels.stats.anova import anova_lm

    seeds, items = TABLE.shape
    rows = [{"x": TABLE[s, i], "seed": s, "item": i} for s in range(seeds) for i in range(items)]
    squares = anova_lm(ols("x ~ C(seed) + C(item)", pandas.DataFrame(rows)).fit())["mean_sq"].tolist()
    spread = crossed(TABLE)
    cells = seeds * items
    assert spread.seed_part == pytest.approx(squares[0] / cells)
    assert spread.item_part == pytest.approx((squares[1] - squares[2]) / cells)
    assert spread.rest_variance == pytest.approx(squares[2])
    assert spread.seed_variance == pytest.approx((squares[0] - squares[2]) / items)
    assert spread.item_variance == pytest.approx((squares[1] - squares[2]) / seeds)
    assert (spread.seed_degrees, spread.item_degrees) == (2, 3)
    assert spread.estimate == pytest.approx(TABLE.mean())


def test_variances_are_unbiased() -> None:
    generator = np.random.default_rng(0)
    n, m, count = 4, 30, 3000
    found = []
    for _ in range(count):
        table = generator.normal(scale=0.5, size=(n, 1)) + generator.normal(scale=1.5, size=(1, m))
        spread = crossed(table + generator.normal(scale=2.0, size=(n, m)))
        found.append([spread.estimate**2, spread.variance, spread.seed_variance, spread.item_variance])
    truth = 0.25 / n + 2.25 / m + 4.0 / (n * m)
    assert np.mean(found, axis=0) == pytest.approx([truth, truth, 0.25, 2.25], rel=0.06)


def test_one_item_leaves_the_seeds() -> None:
    spread = crossed(TABLE[:, :1])
    assert spread.scope == "seeds"
    assert spread.seed_part == pytest.approx(TABLE[:, 0].var(ddof=1) / 3)
    assert spread.item_part == 0.0


def test_one_seed_leaves_the_items() -> None:
    spread = crossed(TABLE[:1])
    assert spread.scope == "items"
    assert spread.item_part == pytest.approx(TABLE[0].var(ddof=1) / 4)
    assert spread.seed_part == 0.0


def test_one_score_says_nothing() -> None:
    spread = crossed(TABLE[:1, :1])
    assert spread.scope == "nothing"
    assert np.isnan(spread.variance)


def test_items_never_seen_to_disagree_are_not_taken_for_equal() -> None:
    spread = crossed(np.zeros((1, 1000)), pseudo=PSEUDO_DIFFERENCE)
    # near the rule of three: 3 / 1000
    assert 1.96 * spread.item_part**0.5 == pytest.approx(0.003, rel=0.1)


def test_weights_are_items_seen_more_often() -> None:
    """Whole weights repeat an item; the mean agrees, and its parts are those of the repeated items taken as
    clusters."""
    weights = np.array([1.0, 3.0, 2.0, 1.0])
    turned = linearised(TABLE, weights)
    repeated = np.repeat(TABLE, weights.astype(int), axis=1)
    assert turned.mean() == pytest.approx(repeated.mean())
    assert turned.mean(axis=1) == pytest.approx(repeated.mean(axis=1))


def test_the_variance_of_a_weighted_mean_is_that_of_its_simulation() -> None:
    generator = np.random.default_rng(1)
    means, guesses = [], []
    for _ in range(3000):
        weights = generator.lognormal(sigma=0.7, size=60)
        values = 1.0 / weights + generator.normal(size=60)
        spread = crossed(linearised(values[None], weights))
        means.append(spread.estimate)
        guesses.append(spread.variance)
    assert np.mean(guesses) == pytest.approx(np.var(means), rel=0.12)


def test_unpaired_seeds_with_one_item_are_welchs_test() -> None:
    first, second = TABLE[:, :1], np.array([[5.0], [7.0], [6.5], [9.0]])
    spread = unpaired(first, second)
    a, b = first.var(ddof=1) / 3, second.var(ddof=1) / 4
    assert spread.seed_part == pytest.approx(a + b)
    assert spread.seed_degrees == pytest.approx((a + b) ** 2 / (a**2 / 2 + b**2 / 3))
    assert spread.scope == "seeds"
    assert not spread.paired


def test_unpaired_variances_are_unbiased() -> None:
    generator = np.random.default_rng(2)
    found = []
    for _ in range(3000):
        item = generator.normal(size=(1, 25))
        arms = [
            generator.normal(scale=scale, size=(n, 1)) + item + generator.normal(scale=0.8, size=(1, 25))
            + generator.normal(scale=1.2, size=(n, 25))
            for n, scale in ((3, 0.3), (5, 0.6))
        ]  # fmt: skip
        spread = unpaired(*arms)
        found.append([spread.estimate**2, spread.variance, spread.seed_variance, spread.item_variance])
    truth = 0.09 / 3 + 0.36 / 5 + 2 * 0.64 / 25 + 1.44 / 75 + 1.44 / 125
    assert np.mean(found, axis=0) == pytest.approx([truth, truth, 0.45, 1.28], rel=0.08)


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 5), st.integers(1, 9))
def test_order_and_sign_do_not_matter(seed: int, seeds: int, items: int) -> None:
    generator = np.random.default_rng(seed)
    table = generator.normal(size=(seeds, items))
    straight = crossed(table)
    shuffled = crossed(-table[generator.permutation(seeds)][:, generator.permutation(items)])
    assert shuffled.estimate == pytest.approx(-straight.estimate)
    if straight.scope != "nothing":
        assert shuffled.variance == pytest.approx(straight.variance)
        assert straight.variance >= 0.0
