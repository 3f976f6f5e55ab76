"""Per-item results of one run on one split, read once: values, outputs, and what they were an answer to."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from subspace.report.record import RunRecord
from subspace.report.values import json_lines

__all__ = ["Items", "read_items"]

_CORRECT = frozenset({"accuracy", "acc", "exact_match", "pass@1"})
"""Metrics that `correct` stands for where an item does not name them."""
_MOST_TEXT = 1_200
"""Signs of a text that are kept; no more are shown."""


@dataclass(frozen=True)
class Items:
    """Items of one run in the order of the file.

    Attributes:
        values: Key of an item (its id, else its index) to its value.
        weights: Key to the tokens that a loss is a mean over; empty for other metrics.
        marks: Key to a number that differs where prompt or reference differ.
        outputs: Key to what the model wrote.
        asked: Key to prompt and reference, where the items read before did not have the same.
    """

    values: Mapping[str, float]
    weights: Mapping[str, float]
    marks: Mapping[str, int]
    outputs: Mapping[str, str]
    asked: Mapping[str, tuple[str, str]]

    @property
    def mean(self) -> float:
        """The score that these items make."""
        if self.weights:
            return sum(value * self.weights[key] for key, value in self.values.items()) / sum(self.weights.values())
        return math.fsum(self.values.values()) / len(self.values)


def read_items(record: RunRecord, split: str, metric: str, known: Mapping[str, int] | None = None) -> Items | None:
    """Read the items of a split under a metric; None if there are none or one of them has no value.

    Args:
        record: The run.
        split: The split or task.
        metric: What an item is worth.
        known: Marks of items whose prompt and reference are held elsewhere.
    """
    held = known or {}
    values: dict[str, float] = {}
    weights: dict[str, float] = {}
    marks: dict[str, int] = {}
    outputs: dict[str, str] = {}
    asked: dict[str, tuple[str, str]] = {}
    for place, item in enumerate(_entries(record, split)):
        value = _value(item, metric)
        if value is None:
            return None
        key = str(item["id"]) if item.get("id") is not None else f"#{item.get('index', place)}"
        values[key] = value
        if metric == "loss":
            tokens = item.get("num_tokens")
            if not isinstance(tokens, int | float) or not tokens > 0:
                return None
            weights[key] = float(tokens)
        prompt, reference = _text(item.get("prompt")), _text(item.get("reference"))
        marks[key] = hash((prompt, reference))
        if held.get(key) != marks[key]:
            asked[key] = prompt[:_MOST_TEXT], reference[:_MOST_TEXT]
        outputs[key] = _text(item.get("output"))[:_MOST_TEXT]
    return Items(values, weights, marks, outputs, asked) if values else None


def _entries(record: RunRecord, split: str) -> Iterable[Mapping[str, Any]]:
    answers = record.answers.get(split)
    if answers is not None:
        return [item for item in answers() if isinstance(item, Mapping)]
    path = record.predictions.get(split)
    if path is None:
        return []
    try:
        return json_lines(path.read_bytes()) or []
    except OSError:
        return []


def _value(item: Mapping[str, Any], metric: str) -> float | None:
    found = item.get(metric)
    if found is None and metric in _CORRECT:
        found = item.get("correct")
    if isinstance(found, bool):
        return float(found)
    if isinstance(found, int | float) and math.isfinite(found):
        return float(found)
    return None


def _text(found: Any) -> str:
    if isinstance(found, str):
        return found
    return "" if found is None else json.dumps(found, ensure_ascii=False)
