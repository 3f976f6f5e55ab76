"""What a reader must know beside the figures, as codes with values.

Every remark about one task carries `task` and `metric`. All codes and their further values:

    nothing-to-compare
        a task has one arm. Values: arm.
    reference-missing
        a task lacks the reference arm: nothing there is compared. Values: reference.
    no-common-items
        two arms share no item: not compared. Values: first, second.
    unequal-items
        some arms lack items; each pair is compared on what both have. Values: common, items (arm -> number).
    unequal-seeds
        some arms lack seeds. Values: seeds (arm -> number), most.
    unpaired-seeds
        pairs whose seeds differ: compared without pairing. Values: pairs (list of [first, second]).
    one-seed
        pairs with one seed: the interval speaks of these trained models on new items; seed noise is unknown.
        Values: pairs.
    not-repeated
        pairs with one score each: nothing can be said. Values: pairs.
    few-seeds
        2 to 4 seeds: the seed noise is a guess. Values: seeds, t_factor (what the standard error is
        multiplied with if seeds are all the noise), normal_factor (the same with endless seeds).
    seeds-identical
        all seeds of an arm gave the same scores item by item: they may not be different runs. Values: arms.
    arms-identical
        pairs with equal scores after every seed on every item. Values: pairs.
    constant-difference
        pairs that differ by the same amount throughout: no variation to judge by; p is that of a sign test.
        Values: pairs.
    no-seed-noise
        seeds differ by no more than single answers do: more seeds add little beyond more items. Values:
        seed_std, rest_std.
    unequal-noise
        seeds move one arm more than the others: what `Comparison.shared` says is not to be trusted. Values: arm,
        share (of all squares), even (the share it would have), p.
    few-discordant
        binary pairs with fewer than 10 items (after the mean seed) that one arm alone gets right. Values:
        pairs, fewest.
    cannot-decide
        no pair was decided, and a true difference as large as the largest seen would be missed more often
        than not. Values: largest, power, detectable, seeds, items.
    multiplicity
        pairs with p <= 1 - level before and above after the correction. Values: pairs, hypotheses.
    blocks-cannot-decide
        so few task x seed blocks that no signed-rank test could pass its correction (no `task`). Values:
        blocks, min_p, needed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy import stats

from subspace.statistics.comparing import Draft
from subspace.statistics.findings import PooledComparison, Remark, TaskVerdict
from subspace.statistics.pairing import Pair
from subspace.statistics.power import noise_of, power_of

__all__ = ["CODES", "pooled_remarks", "task_remarks"]

CODES = (
    "nothing-to-compare",
    "reference-missing",
    "no-common-items",
    "unequal-items",
    "unequal-seeds",
    "unpaired-seeds",
    "one-seed",
    "not-repeated",
    "few-seeds",
    "seeds-identical",
    "arms-identical",
    "constant-difference",
    "no-seed-noise",
    "unequal-noise",
    "few-discordant",
    "cannot-decide",
    "multiplicity",
    "blocks-cannot-decide",
)
"""Every code of a remark, in the order in which they appear."""

_FEW_SEEDS = 5
_FEW_DISCORDANT = 10


def task_remarks(
    work: Draft, verdict: TaskVerdict, reference: str | None, level: float, hypotheses: int
) -> list[Remark]:
    """Return the remarks about one task, in the order of `CODES`."""
    place = {"task": verdict.task, "metric": verdict.metric}
    found = [
        *_about_table(work, reference),
        *_about_pairs(work),
        *_about_noise(work, level),
        *_about_decisions(work, verdict, level, hypotheses),
    ]
    return [Remark(code, {**place, **values}) for code, values in sorted(found, key=lambda one: CODES.index(one[0]))]


def pooled_remarks(pooled: Sequence[PooledComparison], level: float) -> list[Remark]:
    """Return a remark where no signed-rank test of the family could ever decide."""
    if not pooled:
        return []
    blocks = max(item.num_blocks for item in pooled)
    smallest = min(item.min_p for item in pooled)
    needed = (1.0 - level) / len(pooled)
    if smallest <= needed:
        return []
    return [Remark("blocks-cannot-decide", {"blocks": blocks, "min_p": smallest, "needed": needed})]


Found = list[tuple[str, dict[str, Any]]]


def _about_table(work: Draft, reference: str | None) -> Found:
    table, found = work.table, Found()
    if len(table.arms) == 1:
        found.append(("nothing-to-compare", {"arm": table.arms[0]}))
    if reference is not None and reference not in table.arms:
        found.append(("reference-missing", {"reference": reference}))
    found += [("no-common-items", {"first": first, "second": second}) for first, second in work.impossible]
    items = dict(zip(table.arms, table.items_present().sum(axis=1).tolist(), strict=True))
    if any(number != work.items.size for number in items.values()):
        found.append(("unequal-items", {"common": int(work.items.size), "items": items}))
    seeds = dict(zip(table.arms, table.seeds_present().sum(axis=1).tolist(), strict=True))
    if len(set(seeds.values())) > 1:
        found.append(("unequal-seeds", {"seeds": seeds, "most": max(seeds.values())}))
    same = [arm for arm in table.arms if _same_after_every_seed(work, arm)]
    if same:
        found.append(("seeds-identical", {"arms": same}))
    return found


def _same_after_every_seed(work: Draft, arm: str) -> bool:
    place = work.table.arms.index(arm)
    rows = work.table.values[place][work.table.seeds_present()[place]]
    return rows.shape[0] > 1 and bool(np.array_equal(rows, np.broadcast_to(rows[0], rows.shape), equal_nan=True))


def _about_pairs(work: Draft) -> Found:
    found = Found()
    cases = {
        "unpaired-seeds": [pair for pair in work.pairs if not pair.paired],
        "one-seed": [pair for pair in work.pairs if pair.spread.scope == "items"],
        "not-repeated": [pair for pair in work.pairs if pair.spread.scope == "nothing"],
        "arms-identical": [pair for pair in work.pairs if pair.paired and np.array_equal(*pair.scores)],
        "constant-difference": [
            pair for pair in work.pairs if pair.spread.variance == 0.0 and pair.spread.estimate != 0.0
        ],
    }
    found += [(code, {"pairs": _names(pairs)}) for code, pairs in cases.items() if pairs]
    if work.table.binary and work.table.num_items > 1:
        counts = {
            id(pair): float(np.abs(pair.scores[0].mean(axis=0) - pair.scores[1].mean(axis=0)).sum())
            for pair in work.pairs
        }
        few = [pair for pair in work.pairs if counts[id(pair)] < _FEW_DISCORDANT]
        if few:
            fewest = min(counts[id(pair)] for pair in few)
            found.append(("few-discordant", {"pairs": _names(few), "fewest": round(fewest, 1)}))
    return found


def _about_noise(work: Draft, level: float) -> Found:
    found = Found()
    over_seeds = [pair.spread for pair in work.pairs if pair.spread.num_seeds > 1]
    if not over_seeds:
        return found
    seeds = min(spread.num_seeds for spread in over_seeds)
    if seeds < _FEW_SEEDS:
        upper = 0.5 + level / 2.0
        factors = {"t_factor": float(stats.t.ppf(upper, seeds - 1)), "normal_factor": float(stats.norm.ppf(upper))}
        found.append(("few-seeds", {"seeds": seeds, **factors}))
    noise = noise_of(over_seeds)
    if noise is not None and noise.scope == "seeds and items" and noise.seed == 0.0:
        found.append(("no-seed-noise", {"seed_std": 0.0, "rest_std": noise.rest**0.5}))
    shared = work.noise
    if shared is not None and shared.p <= 1.0 - level:
        even = 1.0 / len(work.table.arms)
        found.append(("unequal-noise", {"arm": shared.loudest, "share": shared.share, "even": even, "p": shared.p}))
    return found


def _about_decisions(work: Draft, verdict: TaskVerdict, level: float, hypotheses: int) -> Found:
    found = Found()
    lost = [[item.first, item.second] for item in verdict.comparisons if item.decided is None and item.p <= 1.0 - level]
    if lost:
        found.append(("multiplicity", {"pairs": lost, "hypotheses": hypotheses}))
    power, noise = verdict.power, noise_of([pair.spread for pair in work.pairs])
    undecided = verdict.comparisons and all(item.decided is None for item in verdict.comparisons)
    if undecided and noise is not None and power.detectable is not None:
        largest = max(abs(item.interval.estimate) for item in verdict.comparisons)
        chance = power_of(largest, noise, seeds=power.num_seeds, items=power.num_items, alpha=power.alpha)
        if chance < 0.5:
            values = {"largest": largest, "power": chance, "detectable": power.detectable}
            found.append(("cannot-decide", {**values, "seeds": power.num_seeds, "items": power.num_items}))
    return found


def _names(pairs: Sequence[Pair]) -> list[list[str]]:
    return [[pair.first, pair.second] for pair in pairs]
