"""What a comparison finds, as plain records: numbers, names and codes, never sentences (the page has the words).

Differences are `first - second` in the metric's own units, so that their sign says which score is larger, not which arm
is better; `decided` names the better arm. Records of pooled blocks are turned: positive means that `first` is better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = [
    "Comparison",
    "Interval",
    "PooledComparison",
    "Power",
    "PowerRow",
    "Rank",
    "Remark",
    "TaskVerdict",
    "Verdict",
]


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and the interval that is to hold the true value in `level` of all repetitions.

    Attributes:
        estimate: The point estimate.
        low: Lower end; -inf where nothing was repeated, so that nothing is known.
        high: Upper end; inf likewise.
        level: Nominal coverage, e.g. 0.95.
        method: How it was made: one of the `METHODS` of `intervals`.
    """

    estimate: float
    low: float
    high: float
    level: float
    method: str


@dataclass(frozen=True, slots=True)
class Rank:
    """One arm in the ranking of a task.

    Attributes:
        arm: Its name.
        mean: Its score: the mean over seeds of the (weighted) means over items.
        interval: Of that score for new seeds and new items.
        seed_std: Standard deviation (n - 1) of the scores of its seeds; None with one seed.
        num_seeds: Seeds that it was trained with.
        letters: Compact letter display. Two arms that share a letter were not told apart; arms with no letter in common
            were. Against a reference only the arms that were not told apart from it carry `a`, the others nothing.
    """

    arm: str
    mean: float
    interval: Interval
    seed_std: float | None
    num_seeds: int
    letters: str


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two arms on one task.

    Attributes:
        first: One arm.
        second: The other; the reference where there is one.
        interval: Of first - second, in metric units: the interval that decides.
        bootstrap: The same by the percentile bootstrap over seeds and items, shown beside it; it decides nothing.
        p: Two-sided p value of no difference, from the same statistic as `interval`.
        p_adjusted: After Holm over the whole family (all tasks together).
        decided: The better arm where p_adjusted <= 1 - level, else None.
        d_z: Mean over standard deviation of the paired differences of the units (items, averaged over seeds; seeds
            where the table has one item). None where the deviation is 0 or there is one unit.
        rank_biserial: Matched-pairs rank-biserial correlation of the same units, -1 to 1; None when all of them are 0.
        cliffs_delta: P(a run of first scores higher) - P(lower) over all pairs of runs; None with fewer than two runs
            each.
        mcnemar_p: Exact McNemar over items for binary tables (each item counted once, by its net difference over
            seeds), which holds for these trained models and leaves out seed noise; else None.
        discordant: Share of (seed, item) cells in which exactly one arm is right; None unless binary.
        num_seeds: Seeds that the interval rests on (the smaller number where seeds are not paired).
        num_items: Items that both arms have.
        equivalent: Whether the difference lies within the margin (two one-sided tests, Holm over the family); None
            without.
        scope: What the interval speaks for: "seeds and items", "seeds" (one item), "items" (one seed: these models
            only) or "nothing" (one score each).
        paired: Whether the seeds of both arms were paired.
        shared: The interval if seeds moved all arms of the task by as much (`shared_noise`); None where that is not
            known or changes nothing.
        p_shared: Its p value after Holm over the family.
        decided_shared: The better arm under that assumption; says nothing where `unequal-noise` is remarked.
    """

    first: str
    second: str
    interval: Interval
    bootstrap: Interval
    p: float
    p_adjusted: float
    decided: str | None
    d_z: float | None
    rank_biserial: float | None
    cliffs_delta: float | None
    mcnemar_p: float | None
    discordant: float | None
    num_seeds: int
    num_items: int
    equivalent: bool | None
    scope: str = "seeds and items"
    paired: bool = True
    shared: Interval | None = None
    p_shared: float | None = None
    decided_shared: str | None = None


@dataclass(frozen=True, slots=True)
class PooledComparison:
    """Two arms over all tasks: Wilcoxon's signed ranks over task x seed blocks.

    Attributes:
        first: One arm.
        second: The other.
        num_blocks: Blocks (task, seed) that both arms have.
        wilcoxon_p: Exact two-sided p value.
        p_adjusted: After Holm over the pooled comparisons.
        min_p: The smallest p value that so many blocks can give: 2 / 2^num_blocks.
        rank_biserial: Matched-pairs rank-biserial correlation over blocks; positive means that `first` is better.
    """

    first: str
    second: str
    num_blocks: int
    wilcoxon_p: float
    p_adjusted: float
    min_p: float
    rank_biserial: float | None


@dataclass(frozen=True, slots=True)
class PowerRow:
    """How often a true difference is found.

    Attributes:
        difference: True difference, in metric units.
        seeds: Seeds per arm.
        items: Items.
        power: Probability that the comparison decides, at `Power.alpha`.
    """

    difference: float
    seeds: int
    items: int
    power: float


@dataclass(frozen=True, slots=True)
class Power:
    """What it takes to tell arms apart on this task, from the noise seen.

    Attributes:
        detectable: True difference that is found with `target` probability with these seeds and items; None where the
            noise is unknown.
        one_point: What counts as one point here: 0.01 of a share, 1 % of the mean of anything else.
        seeds_needed: Seeds to find one point with the present items; None where no number up to 1,000 does.
        items_needed: Items to find one point with the present seeds; None where no number does, because of seed noise.
        table: Power for differences, seeds and items around the present ones.
        alpha: Level of the single test that is planned with: (1 - level) / hypotheses, the first step of Holm.
        detectable_alone: The difference found if this were the only comparison planned (at 1 - level).
        detectable_shared: The difference found at `alpha` if seeds move all arms by as much (`Comparison.shared`).
        target: 0.8.
        seed_std: Standard deviation of the paired difference between seeds (mean square over the pairs).
        item_std: The same between items.
        rest_std: The same of a single (seed, item) cell beyond both.
        num_seeds: The present seeds that it was computed with.
        num_items: The present items.
    """

    detectable: float | None
    one_point: float
    seeds_needed: int | None
    items_needed: int | None
    table: tuple[PowerRow, ...]
    alpha: float
    detectable_alone: float | None = None
    detectable_shared: float | None = None
    target: float = 0.8
    seed_std: float | None = None
    item_std: float | None = None
    rest_std: float | None = None
    num_seeds: int = 0
    num_items: int = 0


@dataclass(frozen=True, slots=True)
class Remark:
    """Something the reader must know, as a code and its values; `verdict` lists all codes."""

    code: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TaskVerdict:
    """Everything about one task.

    Attributes:
        task: Its name.
        metric: The metric.
        higher_is_better: Whether a larger score is the better one.
        num_items: Items that all arms have (of the table, where arms have none in common).
        seeds: All seeds of the table.
        ranking: Best first.
        comparisons: In the order of the ranking (best first), or arms against the reference in that order.
        tie_groups: Maximal sets of arms that were not told apart, best first; arms inside in the order of the ranking.
            Sets may overlap. Against a reference there is one set: the reference with what was not told apart from it.
        power: What it takes to tell more.
    """

    task: str
    metric: str
    higher_is_better: bool
    num_items: int
    seeds: tuple[int, ...]
    ranking: tuple[Rank, ...]
    comparisons: tuple[Comparison, ...]
    tie_groups: tuple[tuple[str, ...], ...]
    power: Power


@dataclass(frozen=True, slots=True)
class Verdict:
    """The whole comparison.

    Attributes:
        level: Of the intervals; 1 - level is the family-wise error that decisions keep.
        family: "all pairs" or "against the reference".
        reference: The reference arm, or None.
        num_hypotheses: Comparisons in the family, over all tasks.
        tasks: One verdict a table, in the order given.
        pooled: One comparison a pair of arms that meet in at least one task.
        remarks: What the reader must know.
    """

    level: float
    family: str
    reference: str | None
    num_hypotheses: int
    tasks: tuple[TaskVerdict, ...]
    pooled: tuple[PooledComparison, ...]
    remarks: tuple[Remark, ...]
