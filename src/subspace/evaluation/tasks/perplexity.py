"""Perplexity of texts of any length: every token is predicted once, in windows as long as the model's context.

    perplexity        exp(-sum log p / tokens)
    word_perplexity   exp(-sum log p / words), words split at white space: the same for every tokenizer
    byte_perplexity   exp(-sum log p / bytes), UTF-8
    bits_per_byte     -sum log2 p / bytes

A text file is one text, or several that end at lines `<|endoftext|>`; other files have a column `text`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["TASK"]


def _text(row: Mapping[str, Any]) -> Doc | None:
    text = row["text"]
    if not isinstance(text, str):
        raise TypeError("a text that is none")
    return {"text": text} if text.strip() else None


TASK = Task(
    name="perplexity",
    version=1,
    kind="perplexity",
    source=Source("", None, "test"),
    layouts=(Layout(("text",), _text),),
    metrics=("perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "loss"),
    question=lambda doc: str(doc["text"]),
)
