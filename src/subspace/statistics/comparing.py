"""One task judged: ranking, comparisons, tie groups; the family's adjusted p values come from `verdict.judge`."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from subspace.statistics.effects import cliffs_delta, d_z, rank_biserial
from subspace.statistics.findings import Comparison, Interval, Rank, TaskVerdict
from subspace.statistics.intervals import BOOTSTRAP, p_value, t_interval
from subspace.statistics.pairing import Pair, arm_spread, lay_out, scores_by_seed
from subspace.statistics.power import noise_of, plan_power
from subspace.statistics.resampling import bootstrap_means, percentile_ends
from subspace.statistics.scores import ScoreTable
from subspace.statistics.shared_noise import SharedNoise, shared_noise
from subspace.statistics.tests import equivalence_p, mcnemar_over_seeds
from subspace.statistics.ties import letters_of, tie_groups

__all__ = ["Adjusted", "Draft", "Settings", "draft", "finish", "is_share"]


@dataclass(frozen=True, slots=True)
class Settings:
    """What `judge` was asked for; see there."""

    reference: str | None
    level: float
    resamples: int
    seed: int
    margin: float | None


@dataclass(frozen=True, slots=True, eq=False)
class Draft:
    """One task before the correction for the number of comparisons.

    Attributes:
        table: Its scores.
        ranked: Arms, best first.
        items: Items that the ranking is made on: those of all arms, or all of the table where arms have none in common.
        pairs: Comparisons of the family that can be made.
        impossible: Pairs without a common item.
        p: Two-sided p value of each pair.
        equivalence: p value of equivalence of each pair, or nothing without a margin.
        noise: Seed noise that all arms share, if it can be known.
        p_shared: p value of each pair with that noise; its own where there is none.
    """

    table: ScoreTable
    ranked: tuple[str, ...]
    items: NDArray[np.intp]
    pairs: tuple[Pair, ...]
    impossible: tuple[tuple[str, str], ...]
    p: tuple[float, ...]
    equivalence: tuple[float, ...]
    noise: SharedNoise | None
    p_shared: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Adjusted:
    """p values of the pairs of one task after Holm over the whole family; `equivalence` is empty without a margin."""

    p: tuple[float, ...]
    p_shared: tuple[float, ...]
    equivalence: tuple[float, ...]


def draft(table: ScoreTable, settings: Settings) -> Draft:
    """Return the ranking and the unadjusted p values of one task."""
    items = np.flatnonzero(table.items_present().all(axis=0))
    means = {arm: _mean(table, arm, items) for arm in table.arms}
    sign = -1.0 if table.higher_is_better else 1.0
    ranked = tuple(sorted(table.arms, key=lambda arm: (sign * means[arm], arm)))
    wanted = _family(ranked, settings.reference)
    laid = [(names, lay_out(table, *names)) for names in wanted]
    pairs = tuple(pair for _, pair in laid if pair is not None)
    margin, noise = settings.margin, shared_noise(table, pairs)
    p_values = tuple(p_value(pair.spread) for pair in pairs)
    return Draft(
        table=table,
        ranked=ranked,
        items=items,
        pairs=pairs,
        impossible=tuple(names for names, pair in laid if pair is None),
        p=p_values,
        equivalence=() if margin is None else tuple(equivalence_p(pair.spread, margin) for pair in pairs),
        noise=noise,
        p_shared=p_values if noise is None else tuple(p_value(noise.spread(pair)) for pair in pairs),
    )


def finish(work: Draft, settings: Settings, adjusted: Adjusted, hypotheses: int) -> TaskVerdict:
    """Return the verdict of one task.

    Args:
        work: The task.
        settings: What was asked for.
        adjusted: Its adjusted p values.
        hypotheses: Comparisons in the whole family.
    """
    table = work.table
    intervals = _bootstraps(work, settings)
    comparisons = tuple(
        _comparison(work, index, intervals[index], adjusted, settings) for index in range(len(work.pairs))
    )
    groups = _groups(work, comparisons, settings.reference)
    spreads = [pair.spread for pair in work.pairs]
    letters = letters_of(groups, table.arms)
    measured = noise_of(spreads)
    # pairs that repeat nothing say nothing of the noise, nor of how often it is met
    repeated = [spread.num_seeds for spread in spreads if measured is None or spread.scope == measured.scope]
    seeds = int(np.median(repeated)) if repeated else len(table.seeds)
    return TaskVerdict(
        task=table.task,
        metric=table.metric,
        higher_is_better=table.higher_is_better,
        num_items=int(work.items.size) or table.num_items,
        seeds=table.seeds,
        ranking=tuple(_rank(work, arm, letters[arm], settings.level) for arm in work.ranked),
        comparisons=comparisons,
        tie_groups=groups,
        power=plan_power(
            spreads,
            seeds=seeds,
            items=int(work.items.size) or table.num_items,
            level=settings.level,
            hypotheses=hypotheses,
            one_point=_one_point(table),
            shared_degrees=None if work.noise is None else work.noise.degrees,
        ),
    )


def is_share(table: ScoreTable) -> bool:
    """Return whether scores are shares: a point of them is 0.01."""
    known = table.values[np.isfinite(table.values)]
    return table.binary or (table.higher_is_better and bool(((known >= 0.0) & (known <= 1.0)).all()))


def _family(ranked: Sequence[str], reference: str | None) -> list[tuple[str, str]]:
    if reference is None:
        return list(combinations(ranked, 2))
    return [(arm, reference) for arm in ranked if arm != reference] if reference in ranked else []


def _items_of(work: Draft, arm: str) -> NDArray[np.intp]:
    """Return the items that an arm is ranked on: the common ones, or its own where there are none."""
    return work.items if work.items.size else _own_items(work.table, arm)


def _own_items(table: ScoreTable, arm: str) -> NDArray[np.intp]:
    return np.flatnonzero(table.items_present()[table.arms.index(arm)])


def _mean(table: ScoreTable, arm: str, items: NDArray[np.intp]) -> float:
    chosen = items if items.size else _own_items(table, arm)
    return float(scores_by_seed(table, arm, chosen).mean()) if chosen.size else math.nan


def _one_point(table: ScoreTable) -> float:
    return 0.01 if is_share(table) else 0.01 * float(np.abs(np.nanmean(table.values)))


def _rank(work: Draft, arm: str, letters: str, level: float) -> Rank:
    table, items = work.table, _items_of(work, arm)
    scores = scores_by_seed(table, arm, items)
    bounds = (0.0, 1.0) if is_share(table) else (-math.inf, math.inf)
    interval = t_interval(arm_spread(table, arm, items), level, bounds=bounds)
    deviation = float(scores.std(ddof=1)) if scores.size > 1 else None
    return Rank(arm, float(scores.mean()), interval, deviation, int(scores.size), letters)


def _comparison(work: Draft, index: int, bootstrap: Interval, adjusted: Adjusted, settings: Settings) -> Comparison:
    pair, table, alpha = work.pairs[index], work.table, 1.0 - settings.level
    spread, (first, second) = pair.spread, pair.scores
    better = pair.first if (spread.estimate > 0) == table.higher_is_better else pair.second
    p, p_shared = adjusted.p[index], adjusted.p_shared[index]
    by_item = table.binary and pair.items.size > 1
    runs = [scores_by_seed(table, arm, pair.items) for arm in (pair.first, pair.second)]
    return Comparison(
        first=pair.first,
        second=pair.second,
        interval=t_interval(spread, settings.level),
        bootstrap=bootstrap,
        p=work.p[index],
        p_adjusted=p,
        decided=better if p <= alpha else None,
        d_z=d_z(pair.units),
        rank_biserial=rank_biserial(pair.units),
        cliffs_delta=cliffs_delta(*runs),
        mcnemar_p=mcnemar_over_seeds(first, second) if by_item else None,
        discordant=_discordant(pair) if table.binary else None,
        num_seeds=spread.num_seeds,
        num_items=spread.num_items,
        equivalent=adjusted.equivalence[index] <= alpha if adjusted.equivalence else None,
        scope=spread.scope,
        paired=pair.paired,
        shared=None if work.noise is None else t_interval(work.noise.spread(pair), settings.level),
        p_shared=None if work.noise is None else p_shared,
        decided_shared=better if work.noise is not None and p_shared <= alpha else None,
    )


def _discordant(pair: Pair) -> float:
    """Return the share of cells in which one arm alone is right; over all pairs of seeds where seeds are not paired."""
    first, second = pair.scores
    if pair.paired:
        return float((first != second).mean())
    share, other = first.mean(axis=0), second.mean(axis=0)
    return float((share * (1 - other) + other * (1 - share)).mean())


def _groups(work: Draft, comparisons: Sequence[Comparison], reference: str | None) -> tuple[tuple[str, ...], ...]:
    decided = {frozenset((item.first, item.second)) for item in comparisons if item.decided is not None}
    if reference is None:
        return tie_groups(work.ranked, decided)
    if reference not in work.ranked:
        return ()
    return (tuple(arm for arm in work.ranked if frozenset((arm, reference)) not in decided),)


def _bootstraps(work: Draft, settings: Settings) -> list[Interval]:
    """Return the percentile interval of every pair; pairs on the same seeds and items are resampled together."""
    table = work.table
    together: dict[tuple[bytes, bytes, bytes], list[int]] = defaultdict(list)
    for index, pair in enumerate(work.pairs):
        together[pair.rows[0].tobytes(), pair.rows[1].tobytes(), pair.items.tobytes()].append(index)
    ends: dict[int, tuple[float, float]] = {}
    for members in together.values():
        pair = work.pairs[members[0]]
        groups = [sorted({work.pairs[i].first for i in members}), sorted({work.pairs[i].second for i in members})]
        if pair.paired:
            groups = [sorted({*groups[0], *groups[1]})]
        values = [
            np.stack([table.values[table.arms.index(arm)][np.ix_(rows, pair.items)] for arm in names])
            for names, rows in zip(groups, pair.rows, strict=False)
        ]
        means = bootstrap_means(values, pair.weights, resamples=settings.resamples, seed=settings.seed)
        for index in members:
            one = work.pairs[index]
            first = means[0][:, groups[0].index(one.first)]
            second = means[-1][:, groups[-1].index(one.second)]
            ends[index] = percentile_ends(first - second, settings.level)
    return [
        Interval(pair.spread.estimate, *ends[index], settings.level, BOOTSTRAP) for index, pair in enumerate(work.pairs)
    ]
