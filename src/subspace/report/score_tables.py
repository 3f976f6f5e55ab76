"""Run folders as tables of scores that can be judged: arms x seeds x items, paired where the items are the same.

A metric that no item carries, or items that do not add up to the score of their run, leave one score a run; what was
done is told in remarks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from subspace.report.arms import Arms, Field
from subspace.report.items import Items, read_items
from subspace.report.record import RunRecord
from subspace.report.tables import LOWER_IS_BETTER, main_metric
from subspace.statistics.findings import Remark
from subspace.statistics.scores import ScoreTable

__all__ = ["Scored", "score_tables"]

_USUAL = ("test", "validation")
_MOST_ARMS = 24
"""Arms that are judged; of more, those with the best means."""
_AGREES = 1e-5
"""Relative difference between the score of a run and the mean over its items that rounding explains."""


@dataclass(frozen=True)
class Scored:
    """One table and where it comes from.

    Attributes:
        table: What is judged; None with fewer than two arms or no number.
        name: The task.
        field: Its runs.
        split: The split of their scores.
        metric: The metric.
        scores: Arm to seed to the score of the run, as it was stored.
        before: Score of the untuned model on the same rows, if it was taken.
        items: Arm and seed to the items, where the table holds items.
        remarks: What the reader must know.
    """

    table: ScoreTable | None
    name: str
    field: Field
    split: str
    metric: str
    scores: Mapping[str, Mapping[int, float]]
    before: float | None
    items: Mapping[tuple[str, int], Items]
    remarks: tuple[Remark, ...]

    @property
    def higher_is_better(self) -> bool:
        return self.metric not in LOWER_IS_BETTER


def score_tables(arms: Arms, metrics: Mapping[str, str] | None = None, *, metric: str | None = None) -> list[Scored]:
    """Return a table for every field and every task that its runs were scored on.

    Args:
        arms: The runs.
        metrics: Task to the metric that was agreed on before (bench.json).
        metric: Speaks for every task that has it.
    """
    found = []
    for field in arms.fields:
        usual = next((split for split in _USUAL if any(split in run.metrics for run in field.records)), None)
        tasks = sorted({name for run in field.records for name in run.metrics} - {"before", *_USUAL})
        for split in [*([usual] if usual else []), *tasks]:
            scored = _scored(arms, field, split, metrics or {}, metric)
            if scored is not None:
                found.append(scored)
    return found


def _scored(arms: Arms, field: Field, split: str, metrics: Mapping[str, str], wanted: str | None) -> Scored | None:
    runs = [run for run in field.records if split in run.metrics]
    agreed = metrics.get(field.task if split in _USUAL else split)
    held = {name for run in runs for name in run.metrics[split]}
    metric = next((name for name in (wanted, agreed) if name in held), None) or main_metric(runs, split)
    if metric is None:
        return None
    remarks: list[Remark] = []
    chosen: dict[tuple[str, int], RunRecord] = {}
    for group in field.groups:
        for place, run in enumerate(group.records):
            if metric in run.metrics.get(split, {}):
                seed = arms.seed_of(run)
                key = (group.label, -1 - place if seed is None else seed)
                if key in chosen:
                    remarks.append(Remark("seed-repeated", {"arm": group.label, "seed": key[1], "run": run.name}))
                chosen[key] = run
    name = _name(arms, field, split)
    kept = _best(chosen, split, metric, name, remarks)
    items = _items(kept, split, metric, name, remarks)
    remarks += [*_unequal(kept, name), *_mixed(kept, name)]
    scores: dict[str, dict[int, float]] = {}
    for (arm, seed), run in chosen.items():
        scores.setdefault(arm, {})[seed] = run.metrics[split][metric]
    before = next((run.metrics["before"][metric] for run in runs if metric in run.metrics.get("before", {})), None)
    table = _table(name, metric, kept, split, items) if len({arm for arm, _ in kept}) > 1 else None
    if split not in _USUAL:
        before = None
    return Scored(table, name, field, split, metric, scores, before, items or {}, tuple(remarks))


def _name(arms: Arms, field: Field, split: str) -> str:
    if split in _USUAL:
        return field.name
    return split if len(arms.fields) == 1 else f"{split} ({field.name})"


def _best(
    chosen: Mapping[tuple[str, int], RunRecord], split: str, metric: str, name: str, remarks: list[Remark]
) -> dict[tuple[str, int], RunRecord]:
    """Return the runs of the best arms where there are more than can be judged together."""
    scores: dict[str, list[float]] = {}
    for (arm, _), run in chosen.items():
        scores.setdefault(arm, []).append(run.metrics[split][metric])
    if len(scores) <= _MOST_ARMS:
        return dict(chosen)
    lower = metric in LOWER_IS_BETTER
    order = sorted(scores, key=lambda arm: (1 if lower else -1) * sum(scores[arm]) / len(scores[arm]))
    remarks.append(Remark("arms-left-out", {"task": name, "judged": _MOST_ARMS, "arms": len(scores)}))
    best = set(order[:_MOST_ARMS])
    return {key: run for key, run in chosen.items() if key[0] in best}


def _items(
    kept: Mapping[tuple[str, int], RunRecord], split: str, metric: str, name: str, remarks: list[Remark]
) -> dict[tuple[str, int], Items] | None:
    """Return the items of every run; None, with a remark, where they are missing or are not the same."""
    found: dict[tuple[str, int], Items] = {}
    first: Items | None = None
    for key, run in kept.items():
        items = read_items(run, split, metric, first.marks if first else None)
        if items is None:
            remarks.append(Remark("no-items", {"task": name, "metric": metric, "run": run.name}))
            return None
        score = run.metrics[split][metric]
        if not math.isclose(items.mean, score, rel_tol=_AGREES, abs_tol=1e-9):
            remarks.append(Remark("items-differ-from-score", {"task": name, "metric": metric, "run": run.name}))
            return None
        first = first or items
        unlike = sum(mark != first.marks[item] for item, mark in items.marks.items() if item in first.marks)
        if unlike or not items.values.keys() & first.values.keys():
            remarks.append(
                Remark("items-differ", {"task": name, "run": run.name, "items": unlike or len(items.values)})
            )
            return None
        found[key] = items
    union = {item for items in found.values() for item in items.values}
    missing = sum(len(items.values) < len(union) for items in found.values())
    if missing:
        remarks.append(Remark("items-missing", {"task": name, "runs": missing, "items": len(union)}))
    return found


def _table(
    name: str,
    metric: str,
    kept: Mapping[tuple[str, int], RunRecord],
    split: str,
    items: Mapping[tuple[str, int], Items] | None,
) -> ScoreTable:
    arms = tuple(dict.fromkeys(arm for arm, _ in kept))
    seeds = tuple(sorted({seed for _, seed in kept}))
    order: list[str] = list(dict.fromkeys(key for found in items.values() for key in found.values)) if items else [""]
    values = np.full((len(arms), len(seeds), len(order)), np.nan)
    for (arm, seed), run in kept.items():
        row = values[arms.index(arm), seeds.index(seed)]
        if items is None:
            row[0] = run.metrics[split][metric]
        else:
            own = items[arm, seed].values
            row[:] = [own.get(key, math.nan) for key in order]
    weights = None
    if items is not None and metric == "loss":
        tokens = {key: weight for found in items.values() for key, weight in found.weights.items()}
        weights = np.array([tokens[key] for key in order])
    finite = values[np.isfinite(values)]
    binary = items is not None and bool(np.isin(finite, (0.0, 1.0)).all())
    return ScoreTable(name, metric, metric not in LOWER_IS_BETTER, arms, seeds, values, weights, binary)


def _unequal(kept: Mapping[tuple[str, int], RunRecord], name: str) -> list[Remark]:
    """Return a remark where runs were not given the same steps, or saw other numbers of tokens."""
    remarks = []
    for code, counts in (
        ("unequal-steps", [run.last_step for run in kept.values() if run.log]),
        ("unequal-tokens", [tokens for run in kept.values() if (tokens := run.num_tokens) is not None]),
    ):
        if counts and max(counts) > 1.01 * min(counts):
            remarks.append(Remark(code, {"task": name, "low": min(counts), "high": max(counts)}))
    return remarks[:1]


def _mixed(kept: Mapping[tuple[str, int], RunRecord], name: str) -> list[Remark]:
    """Return a remark where runs were made on devices of several kinds."""
    devices = sorted({device for run in kept.values() for device in run.devices})
    return [Remark("mixed-devices", {"task": name, "devices": ", ".join(devices)})] if len(devices) > 1 else []
