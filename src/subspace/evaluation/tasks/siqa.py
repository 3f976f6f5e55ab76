"""Social IQa: what people want, feel and do next; three answers.

References:
    Sap et al., 2019, Social IQa: Commonsense Reasoning about Social Interactions, arXiv:1904.09728.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["TASK"]


def _from_hub(row: Mapping[str, Any]) -> Doc:
    gold = int(row["label"]) - 1
    if gold not in (0, 1, 2):
        raise ValueError(f"label {row['label']!r}")
    choices = (row["answerA"], row["answerB"], row["answerC"])
    return {"asked": f"{row['context']} {row['question']}", "choices": choices, "gold": gold}


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    asked, choices, gold = read_options(row, "Answer")
    return {"asked": asked, "choices": choices, "gold": gold}


TASK = Task(
    name="siqa",
    version=1,
    kind="multiple_choice",
    source=Source("lighteval/siqa", None, "validation", "train"),
    layouts=(
        Layout(("context", "question", "answerA", "answerB", "answerC", "label"), _from_hub),
        Layout(COLUMNS, _from_adapters),
    ),
    metrics=("acc",),
    question=lambda doc: f"Q: {doc['asked']}\nA:",
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)
