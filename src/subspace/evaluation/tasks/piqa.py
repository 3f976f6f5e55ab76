"""PIQA: which of two ways reaches an everyday goal.

References:
    Bisk et al., 2020, PIQA: Reasoning about Physical Commonsense in Natural Language, arXiv:1911.11641.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["TASK"]


def _from_hub(row: Mapping[str, Any]) -> Doc:
    return _doc(row["goal"], (row["sol1"], row["sol2"]), int(row["label"]))


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    return _doc(*read_options(row, "Solution"))


def _doc(goal: str, choices: tuple[str, ...], gold: int) -> Doc:
    if gold not in (0, 1):
        raise ValueError(f"label {gold}")
    return {"goal": goal, "choices": choices, "gold": gold}


TASK = Task(
    name="piqa",
    version=1,
    kind="multiple_choice",
    source=Source("baber/piqa", None, "validation", "train"),
    layouts=(Layout(("goal", "sol1", "sol2", "label"), _from_hub), Layout(COLUMNS, _from_adapters)),
    metrics=("acc_norm", "acc", "acc_bytes"),
    question=lambda doc: f"Question: {doc['goal']}\nAnswer:",
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)
