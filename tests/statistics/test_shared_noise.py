"""One seed noise for all arms: that of an analysis of variance, beside the robust decision, its assumption watched."""

from __future__ import annotations

import dataclasses
from itertools import combinations

import numpy as np
import pytest
from made_scores import binary_table
from scipy import stats

from subspace.statistics.pairing import Pair, lay_out
from subspace.statistics.scores import ScoreTable
from subspace.statistics.shared_noise import SharedNoise, shared_noise
from subspace.statistics.verdict import judge


def _runs(levels: list[float], noise: float, *, seeds: int = 3, seed: int = 0, loud: float = 1.0) -> ScoreTable:
    """Return a table of one score a run; the first arm is `loud` times as noisy."""
    generator = np.random.default_rng(seed)
    scale = noise * np.array([loud] + [1.0] * (len(levels) - 1))[:, None]
    scores = np.array(levels)[:, None] + generator.normal(size=(1, seeds)) * noise
    scores = scores + generator.normal(size=(len(levels), seeds)) * scale
    return ScoreTable("quiz", "f1", True, tuple("abcdefghij"[: len(levels)]), tuple(range(seeds)), scores[:, :, None])


def _noise(table: ScoreTable) -> SharedNoise | None:
    pairs = [lay_out(table, *names) for names in combinations(table.arms, 2)]
    return shared_noise(table, [pair for pair in pairs if isinstance(pair, Pair)])


def test_it_is_the_error_of_blocks() -> None:
    import pandas
    from statsmodels.formula.api import ols

    table = _runs([0.5, 0.52, 0.6, 0.61], 0.01)
    rows = [
        {"y": table.values[arm, seed, 0], "arm": arm, "seed": seed}
        for arm in range(len(table.arms))
        for seed in range(len(table.seeds))
    ]
    fit = ols("y ~ C(arm) + C(seed)", pandas.DataFrame(rows)).fit()
    noise = _noise(table)
    assert noise is not None
    assert noise.degrees == fit.df_resid == 6
    assert noise.seed_part == pytest.approx(2 * fit.mse_resid / 3)
    found = next(
        one for one in judge([table], resamples=100).tasks[0].comparisons if {one.first, one.second} == {"a", "b"}
    )
    assert found.shared is not None
    half = float(stats.t.isf(0.025, 6)) * (2 * fit.mse_resid / 3) ** 0.5
    assert found.shared.high - found.shared.low == pytest.approx(2 * half)


def test_three_seeds_tell_apart_what_they_cannot_alone() -> None:
    """Ten points between ten arms of one point of noise: no pair alone passes the correction for 45."""
    verdict = judge([_runs([0.5, 0.6] * 5, 0.01)], resamples=100)
    comparisons = verdict.tasks[0].comparisons
    far = [one for one in comparisons if abs(one.interval.estimate) > 0.06]
    assert len(far) == 25
    assert sum(one.decided is not None for one in far) < 5
    assert all(one.decided_shared == one.first for one in far)
    assert not any(one.decided_shared for one in comparisons if one not in far)
    power = verdict.tasks[0].power
    assert power.detectable_shared is not None
    assert power.detectable is not None
    assert power.detectable_shared < 0.3 * power.detectable


def test_a_noisier_arm_is_noticed() -> None:
    verdict = judge([_runs([0.5] * 6, 0.01, seeds=6, loud=6.0)], resamples=100)
    remark = next(one for one in verdict.remarks if one.code == "unequal-noise")
    assert remark.values["arm"] == "a"
    assert remark.values["share"] > 0.5 > remark.values["even"] == pytest.approx(1 / 6)
    assert not any(one.code == "unequal-noise" for one in judge([_runs([0.5] * 6, 0.01)], resamples=100).remarks)


def test_even_noise_is_seldom_called_uneven() -> None:
    called = [
        noise.p <= 0.05 for seed in range(300) if (noise := _noise(_runs([0.5] * 5, 0.01, seed=seed))) is not None
    ]
    assert len(called) == 300
    assert np.mean(called) <= 0.08


def test_without_three_full_arms_there_is_none() -> None:
    assert _noise(_runs([0.5, 0.6], 0.01)) is None
    assert _noise(_runs([0.5, 0.6, 0.7], 0.01, seeds=1)) is None
    table = binary_table([0.5, 0.6, 0.7])
    assert _noise(table) is not None
    for place in ((0, 1), (0, slice(None), slice(0, 9))):
        values = table.values.copy()
        values[place] = np.nan
        lacking = dataclasses.replace(table, values=values)
        assert _noise(lacking) is None
        found = judge([lacking], resamples=100).tasks[0].comparisons[0]
        assert (found.shared, found.p_shared, found.decided_shared) == (None, None, None)
    still = dataclasses.replace(table, values=np.repeat(table.values[:, :1], 5, axis=1))
    assert _noise(still) is None


def test_it_is_corrected_over_all_tasks_too() -> None:
    one = judge([_runs([0.5, 0.52, 0.6], 0.01)], resamples=100)
    both = judge([_runs([0.5, 0.52, 0.6], 0.01), binary_table([0.5, 0.5, 0.5])], resamples=100)
    single = [found.p_shared for found in one.tasks[0].comparisons]
    double = [found.p_shared for found in both.tasks[0].comparisons]
    assert all(b >= a for a, b in zip(single, double, strict=True) if a is not None and b is not None)
    assert single != double
