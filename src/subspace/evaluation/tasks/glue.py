"""Four tasks of GLUE: MRPC, SST-2, QQP, RTE.

A model with a classification head is asked through it; a language model says a word (`no` / `yes`, ...), and the
likelier one counts. MRPC and QQP are also scored by the F1 of class 1.

References:
    Wang et al., 2018, GLUE: A Multi-Task Benchmark and Analysis Platform, arXiv:1804.07461.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from subspace.core.errors import ConfigError
from subspace.core.registry import nearest
from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["PARTS", "glue"]


@dataclass(frozen=True, slots=True)
class _Part:
    """One task of GLUE: its columns, what a language model is asked, the words it may say, its classes."""

    columns: tuple[str, ...]
    question: Callable[[Doc], str]
    words: tuple[str, str]
    labels: tuple[str, str]
    metrics: tuple[str, ...] = ("acc",)


def _ask_mrpc(doc: Doc) -> str:
    pair = f"Sentence 1: {doc['sentence1']}\nSentence 2: {doc['sentence2']}"
    return f"{pair}\nQuestion: Do both sentences mean the same thing?\nAnswer:"


def _ask_qqp(doc: Doc) -> str:
    pair = f"Question 1: {doc['question1']}\nQuestion 2: {doc['question2']}"
    return f"{pair}\nQuestion: Do both questions ask the same thing?\nAnswer:"


def _ask_sst2(doc: Doc) -> str:
    return f"{doc['sentence']}\nQuestion: Is this sentence positive or negative?\nAnswer:"


def _ask_rte(doc: Doc) -> str:
    return f"{doc['sentence1']}\nQuestion: {doc['sentence2']} True or False?\nAnswer:"


PARTS: Mapping[str, _Part] = {
    "mrpc": _Part(
        ("sentence1", "sentence2"), _ask_mrpc, ("no", "yes"), ("not_equivalent", "equivalent"), ("acc", "f1")
    ),
    "sst2": _Part(("sentence",), _ask_sst2, ("negative", "positive"), ("negative", "positive")),
    "qqp": _Part(("question1", "question2"), _ask_qqp, ("no", "yes"), ("not_duplicate", "duplicate"), ("acc", "f1")),
    "rte": _Part(("sentence1", "sentence2"), _ask_rte, ("True", "False"), ("entailment", "not_entailment")),
}


def glue(name: str | None) -> Task:
    """Return the task of one part of GLUE.

    Raises:
        ConfigError: E-EVL-001 with the nearest part.
    """
    if name is None or name not in PARTS:
        close = nearest(name or "", PARTS)
        raise ConfigError(
            "E-EVL-001",
            where="--tasks",
            found=f"unknown task {f'glue/{name}' if name else 'glue'!r}",
            expected=f"one of {', '.join(f'glue/{part}' for part in PARTS)}",
            action=f"Did you mean 'glue/{close}'?" if close else "",
        )
    part = PARTS[name]
    layouts = [Layout((*part.columns, "label"), lambda row: _doc(row, part, part.columns))]
    if name == "rte":  # SuperGLUE names them otherwise
        layouts.append(
            Layout(("premise", "hypothesis", "label"), lambda row: _doc(row, part, ("premise", "hypothesis")))
        )
    return Task(
        name=f"glue/{name}",
        version=1,
        kind="classification",
        source=Source("nyu-mll/glue", name, "validation", "train"),
        layouts=tuple(layouts),
        metrics=part.metrics,
        question=part.question,
        choices=lambda doc: part.words,
        gold=lambda doc: int(doc["label"]),
        texts=lambda doc: (doc[part.columns[0]], doc[part.columns[1]] if len(part.columns) > 1 else None),
        labels=part.labels,
    )


def _doc(row: Mapping[str, Any], part: _Part, columns: tuple[str, ...]) -> Doc:
    label = row["label"]
    gold = part.labels.index(label) if label in part.labels else int(label)
    if gold not in (0, 1):
        raise ValueError(f"label {label!r}: the gold labels of a GLUE test split are not public")
    texts = dict(zip(part.columns, (row[name] for name in columns), strict=True))
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a sentence that is no text")
    return {**texts, "label": gold}
