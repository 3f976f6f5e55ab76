"""GSM8K: school sums with a worked answer; the model writes one, its last number counts.

    exact_match            what follows `####`, as the examples show it (strict)
    exact_match_flexible   the last number of the text

Both are compared with the reference after removing commas, dollar signs, all up to `#### ` and a final full stop.

References:
    Cobbe et al., 2021, Training Verifiers to Solve Math Word Problems, arXiv:2110.14168.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from subspace.evaluation.tasks.base import Doc, Layout, Source, Task
from subspace.evaluation.tasks.llm_adapters import COLUMNS

__all__ = ["TASK", "flexible_answer", "plain_number", "strict_answer"]

_STRICT = re.compile(r"#### (-?[0-9.,]+)")
_NUMBER = re.compile(r"-?[$0-9.,]{2,}|-?[0-9]+")
_IGNORED = (re.compile(","), re.compile(r"\$"), re.compile(r"(?s).*#### "), re.compile(r"\.$"))


def strict_answer(text: str) -> str | None:
    """Return the number after the first `####`, or None.

    >>> strict_answer("4 + 3 = 7\\n#### 1,007.")
    '1,007.'
    """
    found = _STRICT.search(text)
    return found[1].strip() if found else None


def flexible_answer(text: str) -> str | None:
    """Return the last number of a text, or None; it may hold commas, points and dollar signs.

    >>> flexible_answer("that is $1,007 for 3 of them")
    '3'
    """
    found = _NUMBER.findall(text)
    return found[-1].strip() if found else None


def plain_number(text: str) -> str:
    """Return what two answers are compared by.

    >>> plain_number("so 7\\n#### $1,007.")
    '1007'
    """
    for pattern in _IGNORED:
        text = pattern.sub("", text)
    return text.lower()


def _grade(doc: Doc, text: str) -> dict[str, float]:
    wanted = plain_number(doc["answer"])
    found = {"exact_match": strict_answer(text), "exact_match_flexible": flexible_answer(text)}
    return {name: float(said is not None and plain_number(said) == wanted) for name, said in found.items()}


def _from_adapters(row: Mapping[str, Any]) -> Doc:
    worked = re.sub(r"\A\s*A:\s*", "", row["output"]).strip()
    number = float(row["answer"].replace(",", ""))
    shown = str(int(number)) if number.is_integer() else str(number)
    return {"question": row["instruction"].strip(), "answer": f"{worked}\n#### {shown}"}


TASK = Task(
    name="gsm8k",
    version=1,
    kind="generate",
    source=Source("openai/gsm8k", "main", "test", "train"),
    layouts=(
        Layout(("question", "answer"), lambda row: {"question": row["question"], "answer": str(row["answer"])}),
        Layout(COLUMNS, _from_adapters),
    ),
    metrics=("exact_match", "exact_match_flexible"),
    question=lambda doc: f"Question: {doc['question']}\nAnswer:",
    answer=lambda doc: str(doc["answer"]),
    grade=_grade,
    read=lambda text: strict_answer(text) or flexible_answer(text),
    num_fewshot=5,
    until=("Question:", "</s>", "<|im_end|>"),
    max_new_tokens=256,
)
