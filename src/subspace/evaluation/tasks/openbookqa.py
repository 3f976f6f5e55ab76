"""OpenBookQA: elementary science that needs a fact; the model goes on after the bare question.

References:
    Mihaylov et al., 2018, Can a Suit of Armor Conduct Electricity?, arXiv:1809.02789.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_options

__all__ = ["TASK"]


def _from_hub(row: Mapping[str, Any]) -> Doc:
    gold = list(row["choices"]["label"]).index(row["answerKey"].lstrip())
    return {"question_stem": row["question_stem"], "choices": tuple(row["choices"]["text"]), "gold": gold}


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    text, choices, gold = read_options(row, "Answer")
    return {"question_stem": text, "choices": choices, "gold": gold}


TASK = Task(
    name="openbookqa",
    version=1,
    kind="multiple_choice",
    source=Source("allenai/openbookqa", "main", "test", "train"),
    layouts=(Layout(("question_stem", "choices", "answerKey"), _from_hub), Layout(COLUMNS, _from_adapters)),
    metrics=("acc_norm", "acc", "acc_bytes"),
    question=lambda doc: str(doc["question_stem"]),
    choices=lambda doc: doc["choices"],
    gold=lambda doc: int(doc["gold"]),
)
