"""BoolQ: yes or no, by a passage.

Rows of LLM-Adapters have no passage; the question then stands alone, which is another and a harder task.

References:
    Clark et al., 2019, BoolQ: Exploring the Surprising Difficulty of Natural Yes/No Questions, arXiv:1905.10044.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS, read_question

__all__ = ["TASK"]

_TRUTH = {"false": 0, "true": 1, "0": 0, "1": 1}


def _from_hub(row: Mapping[str, Any]) -> Doc:
    label = row["label"] if "label" in row else row["answer"]
    return {"passage": row["passage"], "question": row["question"], "label": _TRUTH[str(label).lower()]}


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    asked = read_question(row).removesuffix("?")
    return {"passage": "", "question": asked, "label": _TRUTH[row["answer"].strip().lower()]}


def _question(doc: Doc) -> str:
    before = f"{doc['passage']}\n" if doc["passage"] else ""
    return f"{before}Question: {doc['question']}?\nAnswer:"


TASK = Task(
    name="boolq",
    version=1,
    kind="multiple_choice",
    source=Source("aps/super_glue", "boolq", "validation", "train"),
    layouts=(
        Layout(("passage", "question", "label"), _from_hub),
        Layout(("passage", "question", "answer"), _from_hub),
        Layout(COLUMNS, _from_adapters),
    ),
    metrics=("acc",),
    question=_question,
    choices=lambda doc: ("no", "yes"),
    gold=lambda doc: int(doc["label"]),
)
