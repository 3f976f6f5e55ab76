"""Which items split the arms: how often all are right, none is, or only some; and the items that split them most."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import pvariance

from subspace.report.score_tables import Scored

__all__ = ["Answer", "Disagreement", "Split", "disagreement", "item_means"]

_RIGHT = 0.5
"""An arm is right on an item when more than this share of its seeds is."""


@dataclass(frozen=True)
class Answer:
    """What one arm made of an item.

    Attributes:
        arm: The arm.
        value: Its mean over seeds.
        output: What its first seed wrote; "" where outputs were not kept.
    """

    arm: str
    value: float
    output: str


@dataclass(frozen=True)
class Split:
    """One item that arms disagree on; `spread` is the variance of their means."""

    item: str
    prompt: str
    reference: str
    spread: float
    answers: tuple[Answer, ...]


@dataclass(frozen=True)
class Disagreement:
    """All items of a task.

    Attributes:
        items: How many.
        right: All arms are right; None unless items are right or wrong.
        wrong: No arm is right.
        alone: Arm to the items that it alone gets right.
        missed: Arm to the items that it alone gets wrong.
        splits: Items by falling spread, those without any left out.
    """

    items: int
    right: int | None
    wrong: int | None
    alone: Mapping[str, int]
    missed: Mapping[str, int]
    splits: tuple[Split, ...]


def disagreement(scored: Scored, most: int = 12) -> Disagreement | None:
    """Return where the arms of a task differ item by item, with the `most` telling items; None without items."""
    if scored.table is None or not scored.items or scored.table.num_items < 2:
        return None
    means = {key: {arm: mean for arm, (mean, _) in arms.items()} for key, arms in item_means(scored).items()}
    binary = scored.table.binary
    keys = [key for key, found in means.items() if len(found) == len(scored.table.arms)]
    right = wrong = 0
    alone, missed = (dict.fromkeys(scored.table.arms, 0) for _ in range(2))
    spreads: list[tuple[float, str]] = []
    for key in keys:
        values = means[key]
        spread = pvariance(values.values())
        if spread > 0:
            spreads.append((spread, key))
        if binary:
            able = [arm for arm, value in values.items() if value > _RIGHT]
            right += len(able) == len(values)
            wrong += not able
            if len(able) == 1:
                alone[able[0]] += 1
            if len(able) == len(values) - 1:
                missed[next(arm for arm in values if arm not in able)] += 1
    spreads.sort(key=lambda pair: -pair[0])
    splits = tuple(_split(scored, key, spread, means[key]) for spread, key in spreads[:most])
    if not binary:
        return Disagreement(len(keys), None, None, {}, {}, splits)
    return Disagreement(len(keys), right, wrong, alone, missed, splits)


def item_means(scored: Scored) -> dict[str, dict[str, tuple[float, int]]]:
    """Return item to arm to the mean over its seeds and their number."""
    found: dict[str, dict[str, list[float]]] = {}
    for (arm, _), items in scored.items.items():
        for key, value in items.values.items():
            found.setdefault(key, {}).setdefault(arm, []).append(value)
    return {
        key: {arm: (sum(values) / len(values), len(values)) for arm, values in arms.items()}
        for key, arms in found.items()
    }


def _split(scored: Scored, key: str, spread: float, values: Mapping[str, float]) -> Split:
    prompt, reference = next((items.asked[key] for items in scored.items.values() if key in items.asked), ("", ""))
    outputs: dict[str, str] = {}
    for (arm, _), items in scored.items.items():
        outputs.setdefault(arm, items.outputs.get(key, ""))
    sign = -1 if scored.higher_is_better else 1
    answers = tuple(
        Answer(arm, value, outputs.get(arm, ""))
        for arm, value in sorted(values.items(), key=lambda pair: sign * pair[1])
    )
    return Split(key.removeprefix("#"), prompt, reference, spread, answers)
