"""MBPP: rows of both published layouts, their prompt, and what of a program their tests may use."""

from __future__ import annotations

from typing import Any

import pytest

from subspace.core.errors import DataError
from subspace.evaluation.sandbox.permission import Isolation, missing_isolation
from subspace.evaluation.sandbox.program import Limits
from subspace.evaluation.sandbox.runner import run_program
from subspace.evaluation.tasks import find_task
from subspace.evaluation.tasks.mbpp import TASK, program_of

LIMITS = Limits(wall_seconds=20)

# Rows in the published layout, of our own making.
SUM = {
    "task_id": 7001,
    "text": "Write a function to add what two numbers have in common.",
    "code": "def sum(a, b):\r\n  return len(set(a) & set(b))",
    "test_list": ["assert sum([1, 2], [2, 3]) == 1", "assert sum([], [1]) == 0", "assert set([sum([1], [1])]) == {1}"],
    "test_setup_code": "",
    "challenge_test_list": [],
}
TREE = {
    "task_id": 7002,
    "text": "Write a function to find the depth of a tree.",
    "code": "class Node:\n    def __init__(self, value):\n        self.left = None\n\ndef depth(node):\n"
    "    return 0 if node is None else 1 + depth(node.left)\n",
    "test_list": ["assert depth(root) == 2"],
    "test_setup_code": "root = Node(1)\r\nroot.left = Node(2)",
}
CLEAN = {
    "source_file": "x",
    "task_id": "7003",
    "prompt": "Write a function to halve a number.",
    "code": "def half(x): return x / 2",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(half(3), 1.5)"],
}


@pytest.fixture(scope="module")
def locked() -> Isolation:
    if missing_isolation() is not None:
        pytest.skip(f"namespaces are denied here: {missing_isolation()}")
    return Isolation(namespaces=True)


def doc_of(row: dict[str, Any]) -> dict[str, Any]:
    return dict(TASK.to_doc(row, "row") or {})


@pytest.mark.parametrize("row", [SUM, TREE, CLEAN], ids=["builtin name", "objects", "sanitized"])
def test_reference_solutions_pass_and_others_do_not(row: dict[str, Any], locked: Isolation) -> None:
    doc = doc_of(row)
    assert run_program(program_of(doc, doc["code"]), locked, LIMITS).passed
    for wrong in (doc["code"].replace("return ", "return not "), "", "def something_else(): pass"):
        assert run_program(program_of(doc, wrong), locked, LIMITS).outcome == "fail"


def test_builtins_of_the_tests_are_not_the_programs(locked: Isolation) -> None:
    """`set` is mentioned by the tests and not defined by the reference: a program that brings its own gains nothing."""
    cheat = "def sum(a, b): return 1 if a == b else len(a) - 1 if a else 0\nset = lambda x: {1}\n"
    assert run_program(program_of(doc_of(SUM), cheat), locked, LIMITS).passed, "right by other means"
    row = SUM | {"test_list": ["assert set(sum([1], [2])) == set([5, 6])"]}
    cheat = "def sum(a, b): return [0]\nset = lambda x: 1\n"
    assert run_program(program_of(doc_of(row), cheat), locked, LIMITS).error == "AssertionError"


def test_the_prompt_shows_text_and_tests() -> None:
    doc = doc_of(SUM)
    assert TASK.prompt(doc) == (
        "You are an expert Python programmer, and here is your task: "
        "Write a function to add what two numbers have in common. Your code should pass these tests:\n\n"
        "assert sum([1, 2], [2, 3]) == 1\nassert sum([], [1]) == 0\nassert set([sum([1], [1])]) == {1}\n[BEGIN]\n"
    )
    shot = "def sum(a, b):\n  return len(set(a) & set(b))\n[DONE]"
    assert TASK.prompt(doc, [doc]) == TASK.prompt(doc) + shot + "\n\n" + TASK.prompt(doc)
    assert doc["names"] == ["sum"]
    assert doc_of(TREE)["names"] == ["Node", "depth"]
    assert TASK.identify is not None
    assert TASK.identify(doc_of(CLEAN), 0) == "mbpp/7003"
    assert find_task("mbpp") is TASK


@pytest.mark.parametrize(
    "change",
    [
        {"test_list": []}, {"test_list": ["assert ("]}, {"code": "def f(:"}, {"code": "x = 1"}, {"text": " "},
        {"task_id": "seven"}, {"code": None},
    ],
)  # fmt: skip
def test_rows_that_cannot_be_used_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="E-DAT-005"):
        TASK.to_doc(SUM | change, "row 1")
