"""HumanEval: the model ends a Python function that begins with its signature and docstring; tests decide.

    program    prompt + completion
    tests      the row's `check`, called with the function; helpers that the prompt defines (`poly`, `encode_cyclic`)
               are the prompt's own, whatever the completion makes of them

References:
    Chen et al., 2021, Evaluating Large Language Models Trained on Code, arXiv:2107.03374.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from typing import Any

from subspace.evaluation.sandbox.program import Program
from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["TASK", "program_of"]

_COLUMNS = ("task_id", "prompt", "entry_point", "test")


def _doc(row: Mapping[str, Any]) -> Doc:
    texts = {name: row[name] for name in _COLUMNS} | {"canonical_solution": row.get("canonical_solution") or ""}
    if not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a field that is no text")
    if not texts["entry_point"].isidentifier():
        raise ValueError(f"entry_point {texts['entry_point']!r} is no name")
    if "check" not in _functions(texts["test"]):
        raise ValueError("test defines no function check")
    return texts


def _functions(source: str) -> set[str]:
    try:
        return {node.name for node in ast.parse(source).body if isinstance(node, ast.FunctionDef)}
    except SyntaxError as error:
        raise ValueError(f"test is not Python: {error}") from None


def program_of(doc: Doc, completion: str) -> Program:
    """Return the program that a completion makes, and its tests."""
    return Program(
        source=doc["prompt"] + completion,
        tests=f"{doc['test']}\n\ncheck({doc['entry_point']})\n",
        names=(doc["entry_point"],),
        preamble=_alone(doc["prompt"]),
    )


def _alone(prompt: str) -> str:
    """Return a prompt as a program of its own; "" if it breaks off where it cannot stand alone."""
    for source in (prompt, f"{prompt}\n    pass\n"):
        try:
            ast.parse(source)
        except SyntaxError:
            continue
        return source
    return ""


TASK = Task(
    name="humaneval",
    version=1,
    kind="code",
    source=Source("openai/openai_humaneval", None, "test"),
    layouts=(Layout(_COLUMNS, _doc),),
    metrics=("pass@1",),
    question=lambda doc: str(doc["prompt"]),
    answer=lambda doc: str(doc["canonical_solution"]),
    program=program_of,
    identify=lambda doc, index: str(doc["task_id"]),
    delimiter="",
    until=("\nclass", "\ndef", "\n#", "\nif", "\nprint"),
    max_new_tokens=512,
)
