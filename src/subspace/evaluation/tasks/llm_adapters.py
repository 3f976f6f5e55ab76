"""Rows of LLM-Adapters (Hu et al., 2023, arXiv:2304.01933): question, options and answer in one text.

    instruction  "Please choose the correct answer to the question: Why?\\n\\nAnswer1: so Answer2: thus
                  \\n\\nAnswer format: answer1/answer2"
    answer       "answer2"

The options are cut out at their names; what stands before the first is the question, after its introduction.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["COLUMNS", "read_options", "read_question"]

COLUMNS = ("instruction", "output", "answer")
_FORMAT = re.compile(r"\s*Answer format:[^:]*\Z")
_INTRODUCTION = re.compile(r"\APlease [^:]*:\s*")


def read_question(row: Mapping[str, Any]) -> str:
    """Return the text of a row without its introduction and without the line on the answer's format."""
    return _INTRODUCTION.sub("", _FORMAT.sub("", row["instruction"]), count=1).strip()


def read_options(row: Mapping[str, Any], word: str) -> tuple[str, tuple[str, ...], int]:
    """Return question, options and the index of the right one.

    Args:
        row: With `instruction` and `answer`.
        word: What options are called there: Answer, Solution, Ending or Option.

    Raises:
        ValueError: If the options are not numbered from 1, or the answer is none of them.

    >>> text = "Please choose the answer to the question: Why?\\n\\nAnswer1: so Answer2: thus\\n\\nAnswer format: x"
    >>> read_options({"instruction": text, "answer": "answer2"}, "Answer")
    ('Why?', ('so', 'thus'), 1)
    """
    question, *parts = re.split(rf"{word}(\d+):", read_question(row))
    numbers, options = parts[::2], tuple(part.strip() for part in parts[1::2])
    if len(options) < 2 or numbers != [str(number) for number in range(1, len(options) + 1)]:
        raise ValueError(f"options {numbers} of {word!r} are not numbered from 1")
    answers = [f"{word.lower()}{number}" for number in numbers]
    return question.strip(), options, answers.index(row["answer"].strip().lower())
