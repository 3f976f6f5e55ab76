"""ARC-Easy: school questions on science; the model says the text of an answer.

References:
    Clark et al., 2018, Think you have Solved Question Answering? Try ARC, arXiv:1803.05457.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["LAYOUTS", "TASK", "question"]


def _from_hub(row: Mapping[str, Any]) -> Doc:
    choices, labels = row["choices"]["text"], row["choices"]["label"]
    return {"question": row["question"], "choices": tuple(choices), "gold": list(labels).index(row["answerKey"])}


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    text, choices, gold = read_options(row, "Answer")
    return {"question": text, "choices": choices, "gold": gold}


def question(doc: Doc) -> str:
    """Return the prompt of ARC, Easy and Challenge alike."""
    return f"Question: {doc['question']}\nAnswer:"


LAYOUTS = (Layout(("question", "choices", "answerKey"), _from_hub), Layout(COLUMNS, _from_adapters))

TASK = Task(
    name="arc_easy",
    version=1,
    kind="multiple_choice",
    source=Source("allenai/ai2_arc", "ARC-Easy", "test", "train"),
    layouts=LAYOUTS,
    metrics=("acc", "acc_norm", "acc_bytes"),
    question=question,
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)
