"""MBPP: a sentence and its tests; the model writes the function.

The program must be named as the tests name it, so they are part of the prompt. What of the program the tests may use is
what the reference solution defines and they mention: a program cannot put its own `set` or `len` under the tests.

References:
    Austin et al., 2021, Program Synthesis with Large Language Models, arXiv:2108.07732.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
from typing import Any

from subspace.evaluation.sandbox.program import Program
from subspace.evaluation.tasks.base import Doc, Layout, Source, Task

__all__ = ["TASK", "program_of"]

_END = "[DONE]"


def _full(row: Mapping[str, Any]) -> Doc:
    return _doc(row, row["text"], [row["test_setup_code"]])


def _sanitized(row: Mapping[str, Any]) -> Doc:
    return _doc(row, row["prompt"], row["test_imports"])


def _doc(row: Mapping[str, Any], text: str, setup: Iterable[str]) -> Doc:
    code, tests = row["code"].replace("\r\n", "\n"), [test.replace("\r\n", "\n") for test in row["test_list"]]
    if not tests or not text.strip():
        raise ValueError("no text or no test")
    doc = {"task_id": int(row["task_id"]), "text": text, "code": code, "tests": tests}
    doc["setup"] = "\n".join(line.replace("\r\n", "\n") for line in setup)
    doc["names"] = _shared_names(code, [doc["setup"], *tests])
    return doc


def _shared_names(code: str, tests: Iterable[str]) -> list[str]:
    """Return what `code` defines at its top level and `tests` mention."""
    try:
        used = {node.id for test in tests for node in ast.walk(ast.parse(test)) if isinstance(node, ast.Name)}
        defined = set()
        for statement in ast.parse(code).body:
            if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                defined.add(statement.name)
            elif isinstance(statement, ast.Assign | ast.AnnAssign):
                names = [node for node in ast.walk(statement) if isinstance(node, ast.Name)]
                defined |= {node.id for node in names if isinstance(node.ctx, ast.Store)}
    except SyntaxError as error:
        raise ValueError(f"not Python: {error}") from None
    found = sorted(used & defined)
    if not found:
        raise ValueError("the tests use nothing that the code defines")
    return found


def program_of(doc: Doc, completion: str) -> Program:
    """Return the program that a completion makes, and its tests."""
    tests = "\n".join([doc["setup"], *doc["tests"]])
    return Program(source=completion, tests=f"{tests}\n", names=tuple(doc["names"]))


def _question(doc: Doc) -> str:
    tests = "\n".join(doc["tests"][:3])
    return (
        f"You are an expert Python programmer, and here is your task: {doc['text']} "
        f"Your code should pass these tests:\n\n{tests}\n[BEGIN]\n"
    )


TASK = Task(
    name="mbpp",
    version=1,
    kind="code",
    source=Source("google-research-datasets/mbpp", "full", "test", "prompt"),
    layouts=(
        Layout(("task_id", "text", "code", "test_list", "test_setup_code"), _full),
        Layout(("task_id", "prompt", "code", "test_list", "test_imports"), _sanitized),
    ),
    metrics=("pass@1",),
    question=_question,
    answer=lambda doc: f"{doc['code']}\n{_END}",
    program=program_of,
    identify=lambda doc, index: f"mbpp/{doc['task_id']}",
    num_fewshot=3,
    sampler="first",
    delimiter="",
    until=(_END,),
    max_new_tokens=512,
)
