"""The bootstrap over seeds and items against its definition."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.statistics import resampling
from subspace.statistics.resampling import bootstrap_means, draw_counts, percentile_ends


def test_counts_are_those_of_draws_with_replacement() -> None:
    counts = draw_counts(20_000, 5, np.random.default_rng(0))
    assert counts.shape == (20_000, 5)
    assert (counts.sum(axis=1) == 5).all()
    assert counts.mean(axis=0) == pytest.approx(np.ones(5), abs=0.03)
    assert counts.var(axis=0) == pytest.approx(np.full(5, 0.8), abs=0.05)


def test_means_are_those_of_the_drawn_seeds_and_items(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    values, weights = generator.normal(size=(2, 3, 4)), np.array([1.0, 2.0, 0.5, 3.0])
    drawn = {4: np.array([[2.0, 0.0, 1.0, 1.0]]), 3: np.array([[1.0, 2.0, 0.0]])}
    monkeypatch.setattr(resampling, "draw_counts", lambda num, size, _: np.repeat(drawn[size], num, axis=0))
    means = bootstrap_means([values], weights, resamples=2, seed=0)[0]
    chosen, seeds = [0, 0, 2, 3], [0, 1, 1]
    for arm in (0, 1):
        by_hand = np.mean([np.average(values[arm, s, chosen], weights=weights[chosen]) for s in seeds])
        assert means[:, arm] == pytest.approx([by_hand, by_hand])


def test_arms_are_drawn_together() -> None:
    """Equal arms stay equal in every resample; chunks do not repeat one another."""
    rows = np.random.default_rng(0).normal(size=(3, 500))
    means = bootstrap_means([np.stack([rows, rows])], None, resamples=2_000, seed=1)[0]
    assert (means[:, 0] == means[:, 1]).all()
    assert np.unique(means[:, 0]).size == 2_000


def test_groups_share_items_and_not_seeds() -> None:
    item_only = np.repeat(np.random.default_rng(0).normal(size=(1, 1, 40)), 3, axis=1)
    first, second = bootstrap_means([item_only, item_only[:, :2]], None, resamples=300, seed=1)
    assert first[:, 0] == pytest.approx(second[:, 0])
    seed_only = np.repeat(np.arange(3.0)[None, :, None], 40, axis=2)
    first, second = bootstrap_means([seed_only, seed_only], None, resamples=300, seed=1)
    assert np.corrcoef(first[:, 0], second[:, 0])[0, 1] == pytest.approx(0.0, abs=0.2)


def test_the_seed_repeats_it() -> None:
    values = np.random.default_rng(0).normal(size=(1, 3, 30))
    one, same, other = (bootstrap_means([values], None, resamples=200, seed=seed)[0] for seed in (1, 1, 2))
    assert (one == same).all()
    assert not (one == other).all()


def test_percentiles() -> None:
    assert percentile_ends(np.arange(101.0), 0.9) == pytest.approx((5.0, 95.0))
