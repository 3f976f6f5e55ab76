"""Generated texts against references by ROUGE, over a local file: summaries, or answers to any prompt.

A row has `prompt` and `reference` (asked word for word), `document` or `article` and `summary` or `highlights` (asked
for a summary), or `instruction`, `input` and `output`.

References:
    Lin, 2004, ROUGE: A Package for Automatic Evaluation of Summaries.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.metrics import rouge
from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["TASK"]


def _verbatim(row: Mapping[str, Any]) -> Doc:
    return _doc(row["prompt"], row["reference"])


def _document(text: str, summary: str) -> Layout:
    return Layout((text, summary), lambda row: _doc(f"{row[text].strip()}\n\nSummary:", row[summary]))


def _instruction(row: Mapping[str, Any]) -> Doc:
    given = row.get("input") or ""
    return _doc("\n".join([row["instruction"], *([given] if given else [])]), row["output"])


def _doc(prompt: str, reference: str) -> Doc:
    if not prompt.strip() or not reference.strip():
        raise ValueError("an empty prompt or reference")
    return {"prompt": prompt, "reference": reference}


def _grade(doc: Doc, text: str) -> dict[str, float]:
    return {name: measured.value for name, measured in rouge([text], [doc["reference"]]).items()}


TASK = Task(
    name="rouge",
    version=1,
    kind="generate",
    source=Source("", None, "test", "train"),
    layouts=(
        Layout(("prompt", "reference"), _verbatim),
        _document("document", "summary"),
        _document("article", "highlights"),
        Layout(("instruction", "output"), _instruction),
    ),
    metrics=("rougeL", "rouge1", "rouge2"),
    question=lambda doc: str(doc["prompt"]),
    answer=lambda doc: str(doc["reference"]),
    grade=_grade,
    until=("\n\n",),
    max_new_tokens=128,
)
