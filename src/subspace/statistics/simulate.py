"""Simulated comparisons whose truth is known: what intervals, error rates and power are measured on.

Legend: a arms, s seeds, i items.

Binary items follow a probit model, in which the expected score of an arm is known in closed form:

    right_asi = [ mu_a + difficulty_i + taste_ai + run_as + luck_asi > 0 ],   all terms normal, luck of variance 1
    expected score of a = Phi(mu_a / sqrt(1 + var(difficulty) + var(taste) + var(run)))

Losses add the same terms, the items' own part skewed, each item weighted by its number of tokens:

    loss_asi = mu_a + difficulty_i + (taste_ai + luck_asi) / sqrt(tokens_i / mean(tokens)) + run_as

`run` is what the seed does to a whole run; `share` of its variance comes from the data order, which arms of one seed
have in common and which cancels in their difference.

References: Lord (1952), the normal-ogive model of test items.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from subspace.statistics.crossed import Spread
from subspace.statistics.intervals import p_value, t_interval
from subspace.statistics.pairing import Pair, lay_out
from subspace.statistics.resampling import bootstrap_means, percentile_ends
from subspace.statistics.scores import ScoreTable
from subspace.statistics.tests import holm

__all__ = ["SETTINGS", "Coverage", "Setting", "coverage_of", "family_wise_error", "how_often_found", "simulate"]

Ends = Callable[[Pair], tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Setting:
    """A kind of comparison.

    Attributes:
        name: What it is called in tables.
        num_items: Items.
        seed_std: Standard deviation that the seed gives the score of one arm, in score units.
        accuracy: Expected score of binary items; None for losses.
        difficulty: Standard deviation between items (latent for binary items).
        taste: Standard deviation of what one arm makes of one item, the same after every seed.
        luck: Standard deviation of single answers; 1 for binary items.
        share: Share of the seed's variance that all arms have in common.
        num_seeds: Seeds per arm.
    """

    name: str
    num_items: int
    seed_std: float
    accuracy: float | None = None
    difficulty: float = 1.5
    taste: float = 0.4
    luck: float = 1.0
    share: float = 0.3
    num_seeds: int = 5


SETTINGS = (
    Setting("binary, seeds rule", 1500, 0.012, accuracy=0.85, taste=0.15),
    Setting("binary, mixed", 600, 0.008, accuracy=0.7),
    Setting("binary, items rule", 200, 0.004, accuracy=0.6, taste=1.0),
    Setting("binary, near the top", 500, 0.005, accuracy=0.9),
    Setting("binary, no seed noise", 500, 0.0, accuracy=0.7),
    Setting("loss, seeds rule", 500, 0.02, difficulty=0.6, taste=0.05, luck=0.1),
    Setting("loss, mixed", 300, 0.008, difficulty=0.6, taste=0.12, luck=0.15),
    Setting("loss, items rule", 200, 0.002, difficulty=0.6, taste=0.2, luck=0.1),
    Setting("one score a run", 1, 0.01, difficulty=0.0, taste=0.0, luck=0.0),
)
"""Realistic noise: seeds move a score by half a point to one point, tests have a few hundred items."""


def simulate(setting: Setting, gaps: Sequence[float], generator: np.random.Generator) -> ScoreTable:
    """Return one table in which arm k is truly `gaps[k]` above the setting's score.

    Args:
        setting: The kind of comparison.
        gaps: One true offset for each arm, in score units.
        generator: Of the random numbers.
    """
    num_arms, seeds, items = len(gaps), setting.num_seeds, setting.num_items
    make = _answers if setting.accuracy is not None else _losses
    values, weights = make(setting, np.asarray(gaps, dtype=np.float64), generator)
    return ScoreTable(
        task=setting.name,
        metric="accuracy" if setting.accuracy is not None else "loss",
        higher_is_better=setting.accuracy is not None,
        arms=tuple(f"arm-{index}" for index in range(num_arms)),
        seeds=tuple(range(seeds)),
        values=values,
        weights=weights if items > 1 else None,
        binary=setting.accuracy is not None,
    )


@dataclass(frozen=True, slots=True)
class Coverage:
    """How often intervals held the truth.

    Attributes:
        share: Of the simulated comparisons.
        error: Its Monte-Carlo standard error.
        mean_width: Mean width of the intervals.
    """

    share: float
    error: float
    mean_width: float


def t_ends(level: float = 0.95) -> Ends:
    """Return the maker of the interval that decides."""

    def ends(pair: Pair) -> tuple[float, float]:
        interval = t_interval(pair.spread, level)
        return interval.low, interval.high

    return ends


def bootstrap_ends(level: float = 0.95, resamples: int = 1_000) -> Ends:
    """Return the maker of the percentile bootstrap interval over seeds and items."""

    def ends(pair: Pair) -> tuple[float, float]:
        difference = (pair.scores[0] - pair.scores[1])[None]
        means = bootstrap_means([difference], pair.weights, resamples=resamples, seed=0)
        return percentile_ends(means[0][:, 0], level)

    return ends


def coverage_of(setting: Setting, *, comparisons: int, seed: int = 0, ends: Ends | None = None) -> Coverage:
    """Return how often the interval of the difference of two equal arms holds 0.

    Args:
        setting: The kind of comparison.
        comparisons: Simulated comparisons.
        seed: Of the random numbers.
        ends: Maker of the interval; the one that decides by default.
    """
    generator, ends = np.random.default_rng(seed), ends or t_ends()
    held, widths = 0, 0.0
    for _ in range(comparisons):
        low, high = ends(_pair(simulate(setting, (0.0, 0.0), generator), 0, 1))
        held += low <= 0.0 <= high
        widths += high - low
    share = held / comparisons
    return Coverage(share, math.sqrt(share * (1.0 - share) / comparisons), widths / comparisons)


def family_wise_error(
    setting: Setting, *, num_arms: int, against_reference: bool, comparisons: int, level: float = 0.95, seed: int = 0
) -> float:
    """Return how often equal arms lead to any decision after Holm.

    Args:
        setting: The kind of comparison.
        num_arms: Arms, the reference included.
        against_reference: Compare with the first arm alone; else all pairs.
        comparisons: Simulated families.
        level: 1 - level is the error allowed.
        seed: Of the random numbers.
    """
    generator, wrong = np.random.default_rng(seed), 0
    chosen = [(k, 0) for k in range(1, num_arms)] if against_reference else list(combinations(range(num_arms), 2))
    for _ in range(comparisons):
        table = simulate(setting, (0.0,) * num_arms, generator)
        p_values = [p_value(_pair(table, first, second).spread) for first, second in chosen]
        wrong += min(holm(p_values)) <= 1.0 - level
    return wrong / comparisons


def how_often_found(
    setting: Setting, gap: float, *, comparisons: int, alpha: float = 0.05, seed: int = 0
) -> tuple[float, list[Spread]]:
    """Return how often a true gap is found in the right direction, and the spreads seen on the way.

    Args:
        setting: The kind of comparison.
        gap: True difference of two arms, in score units.
        comparisons: Simulated comparisons.
        alpha: Level of the test.
        seed: Of the random numbers.
    """
    generator, found, spreads = np.random.default_rng(seed), 0, []
    for _ in range(comparisons):
        spread = _pair(simulate(setting, (gap, 0.0), generator), 0, 1).spread
        found += p_value(spread) <= alpha and (spread.estimate > 0.0) == (gap > 0.0)
        spreads.append(spread)
    return found / comparisons, spreads


def with_seeds(setting: Setting, num_seeds: int) -> Setting:
    """Return the same kind of comparison with another number of seeds."""
    return replace(setting, num_seeds=num_seeds)


def _pair(table: ScoreTable, first: int, second: int) -> Pair:
    pair = lay_out(table, table.arms[first], table.arms[second])
    if pair is None:
        raise AssertionError("simulated tables are full")
    return pair


def _runs(setting: Setting, scale: float, num_arms: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Return what the seeds do, of shape (arms, seeds, 1), with a deviation of `scale`."""
    common = generator.normal(size=(1, setting.num_seeds, 1)) * math.sqrt(setting.share)
    own = generator.normal(size=(num_arms, setting.num_seeds, 1)) * math.sqrt(1.0 - setting.share)
    runs: NDArray[np.float64] = scale * (common + own)
    return runs


def _answers(
    setting: Setting, gaps: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], None]:
    """Return answers, 0 or 1, of shape (arms, seeds, items)."""
    if setting.accuracy is None:
        raise AssertionError("answers have an accuracy")
    num_arms, seeds, items = gaps.size, setting.num_seeds, setting.num_items
    fixed = 1.0 + setting.difficulty**2 + setting.taste**2
    # the seed's part in the score is its latent part times the slope of the normal curve at the arm's level
    slope = float(stats.norm.pdf(stats.norm.ppf(setting.accuracy))) / math.sqrt(fixed)
    run = setting.seed_std / slope
    means = stats.norm.ppf(setting.accuracy + gaps) * math.sqrt(fixed + run**2)
    latent = generator.normal(size=(num_arms, seeds, items))
    latent += means[:, None, None] + _runs(setting, run, num_arms, generator)
    latent += generator.normal(scale=setting.difficulty, size=(1, 1, items))
    latent += generator.normal(scale=setting.taste, size=(num_arms, 1, items))
    return (latent > 0.0).astype(np.float64), None


def _losses(
    setting: Setting, gaps: NDArray[np.float64], generator: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return losses of shape (arms, seeds, items) and the items' tokens."""
    num_arms, seeds, items = gaps.size, setting.num_seeds, setting.num_items
    tokens = np.ceil(generator.lognormal(mean=3.5, sigma=0.6, size=items))
    noise = generator.normal(scale=setting.luck, size=(num_arms, seeds, items))
    noise += generator.normal(scale=setting.taste, size=(num_arms, 1, items))
    # the mean number of tokens is the distribution's, not the sample's: 3.5 and 0.6 as above
    noise /= np.sqrt(tokens / math.exp(3.5 + 0.6**2 / 2.0))
    skewed = setting.difficulty * (generator.exponential(size=(1, 1, items)) - 1.0)
    return 2.0 + gaps[:, None, None] + skewed + noise + _runs(setting, setting.seed_std, num_arms, generator), tokens
