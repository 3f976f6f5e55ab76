"""HumanEval in the sandbox: right solutions pass, wrong ones fail, whatever is wrong with them."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from evaluation.mutants import is_right, mutants, wrong_version
from subspace.core.errors import DataError
from subspace.evaluation.sandbox.permission import Isolation, missing_isolation
from subspace.evaluation.sandbox.program import Limits, Program
from subspace.evaluation.sandbox.runner import run_programs
from subspace.evaluation.tasks import find_task
from subspace.evaluation.tasks.documents import SourceOverride, read_documents
from subspace.evaluation.tasks.humaneval import TASK, program_of

FILE = Path(__file__).resolve().parents[3] / "shared" / "data" / "code" / "humaneval.jsonl.gz"
LIMITS = Limits(wall_seconds=10)
TEN = range(0, 164, 17)
WITH_HELPERS = (32, 33, 38, 50)  # their tests use what the prompt defines


@pytest.fixture(scope="module")
def docs() -> list[dict[str, Any]]:
    if not FILE.exists():
        pytest.skip("needs ../shared/data/code/humaneval.jsonl.gz")
    with gzip.open(FILE, "rt", encoding="utf-8") as file:
        return [dict(TASK.to_doc(json.loads(line), "row") or {}) for line in file]


@pytest.fixture(scope="module")
def locked() -> Isolation:
    if missing_isolation() is not None:
        pytest.skip(f"namespaces are denied here: {missing_isolation()}")
    return Isolation(namespaces=True)


def right(doc: dict[str, Any]) -> Program:
    return program_of(doc, doc["canonical_solution"])


def wrong(doc: dict[str, Any]) -> Program:
    source = doc["prompt"] + doc["canonical_solution"]
    tests = f"{doc['test']}\ncheck({doc['entry_point']})"
    assert is_right(source, tests)
    found = program_of(doc, "")
    return Program(wrong_version(source, doc["entry_point"], tests), found.tests, found.names, found.preamble)


def test_ten_solutions_pass_and_ten_wrong_ones_fail(docs: list[dict[str, Any]], locked: Isolation) -> None:
    chosen = [docs[index] for index in (*TEN, *WITH_HELPERS)]
    programs = [program for doc in chosen for program in (right(doc), wrong(doc))]
    outcomes = [found.outcome for found in run_programs(programs, locked, LIMITS, workers=2)]
    assert outcomes[::2] == ["pass"] * len(chosen)
    assert set(outcomes[1::2]) <= {"fail", "timeout"}


def test_sandbox_and_plain_run_agree_on_every_mutant(docs: list[dict[str, Any]], locked: Isolation) -> None:
    """Also on those that the tests do not catch, which must pass."""
    doc = docs[19]
    tests = f"{doc['test']}\ncheck({doc['entry_point']})"
    sources = list(mutants(doc["prompt"] + doc["canonical_solution"], doc["entry_point"]))
    whole = program_of(doc, "")
    programs = [Program(source, whole.tests, whole.names, whole.preamble) for source in sources]
    found = [each.passed for each in run_programs(programs, locked, Limits(wall_seconds=5), workers=2)]
    assert found == [is_right(source, tests) for source in sources]
    assert len(set(found)) == 2


@pytest.mark.parametrize("kind", ["right", "wrong"])
def test_all_164(kind: str, docs: list[dict[str, Any]], locked: Isolation) -> None:
    programs = [right(doc) if kind == "right" else wrong(doc) for doc in docs]
    found = run_programs(programs, locked, Limits(wall_seconds=5), workers=2)
    assert len(found) == 164
    odd = [doc["task_id"] for doc, each in zip(docs, found, strict=True) if each.passed != (kind == "right")]
    assert odd == []


def test_a_completion_may_not_redefine_what_the_tests_use(docs: list[dict[str, Any]], locked: Isolation) -> None:
    """The tests of find_zero put the answer into the prompt's polynomial."""
    cheat = "    return 0.0\n\ndef poly(xs, x):\n    return 0.0\n"
    doc = docs[32]
    assert is_right(doc["prompt"] + cheat, f"{doc['test']}\ncheck({doc['entry_point']})"), "plainly it gets through"
    (found,) = run_programs([program_of(doc, cheat)], locked, LIMITS)
    assert (found.outcome, found.error) == ("fail", "AssertionError")


def test_empty_and_broken_completions_fail(docs: list[dict[str, Any]], locked: Isolation) -> None:
    completions = ["", "    return", "    return (", "    yield 1", "    raise NotImplementedError"]
    found = run_programs([program_of(docs[0], completion) for completion in completions], locked, LIMITS)
    assert [each.outcome for each in found] == ["fail"] * len(completions)
    assert [each.error for each in found] == [
        "AssertionError", "AssertionError", "SyntaxError", "AssertionError", "NotImplementedError"
    ]  # fmt: skip


def test_documents_are_read_by_name(docs: list[dict[str, Any]]) -> None:
    found = read_documents(find_task("humaneval"), SourceOverride(path=str(FILE)))
    assert len(found.docs) == 164
    assert found.ids[:2] == ("HumanEval/0", "HumanEval/1")
    assert TASK.prompt(found.docs[0]) == docs[0]["prompt"]
    assert TASK.target(found.docs[0]) == docs[0]["canonical_solution"]


def test_a_prompt_that_breaks_off_has_no_helpers() -> None:
    row = {"task_id": "x/1", "entry_point": "f", "test": "def check(candidate):\n    assert candidate(1) == 2\n"}
    assert program_of(row | {"prompt": "import math\ndef f(x):\n"}, "    return 2").preamble.startswith("import math\n")
    assert program_of(row | {"prompt": "def f(x:"}, " int): return 2").preamble == ""


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"entry_point": "not a name"}, "E-DAT-005"),
        ({"test": "def verify(candidate): pass"}, "E-DAT-005"),
        ({"test": "def check(:"}, "E-DAT-005"),
        ({"prompt": 3}, "E-DAT-005"),
        ({"test": None}, "E-DAT-005"),
    ],
)
def test_rows_that_cannot_be_used_are_refused(change: dict[str, Any], code: str) -> None:
    row = {"task_id": "x/1", "prompt": "def f(x):\n", "entry_point": "f", "test": "def check(candidate): pass"}
    assert TASK.to_doc(row, "row 1")
    with pytest.raises(DataError, match=code):
        TASK.to_doc(row | change, "row 1")
    with pytest.raises(DataError, match="E-DAT-004"):
        TASK.to_doc({"prompt": "x"}, "row 1")
