"""pass@k, samples that repeat, and what an item tells of the programs of a model."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
import torch

from subspace.cli.main import main
from subspace.core.errors import SecurityError, UsageError
from subspace.evaluation.answer import Sampling, find_answers
from subspace.evaluation.decoding import sampled_pick
from subspace.evaluation.pass_at_k import pass_at_k
from subspace.evaluation.sandbox.permission import missing_isolation
from subspace.evaluation.sandbox.program import Execution, Program
from subspace.evaluation.sandbox.scores import completion, measured_ks, program_items, score_programs
from subspace.evaluation.task_scores import Subject, score_task
from subspace.evaluation.tasks.documents import Documents
from subspace.evaluation.tasks.humaneval import TASK
from subspace.pipeline.code_execution import CodeExecution


def doc(number: int) -> dict[str, str]:
    test = f"def check(candidate):\n    assert candidate() == {number}\n"
    return {"task_id": f"own/{number}", "prompt": f"def f{number}():\n", "entry_point": f"f{number}", "test": test,
            "canonical_solution": f"    return {number}\n"}  # fmt: skip


def documents(*numbers: int) -> Documents:
    docs = tuple(doc(number) for number in numbers)
    return Documents(docs, tuple(each["task_id"] for each in docs), ((),) * len(docs), 0, "here", "")


def executed(outcome: Any) -> Execution:
    return Execution(outcome, None if outcome == "pass" else "Odd", "a message", "", 0.25)


@pytest.mark.parametrize(("n", "c", "k"), [(5, c, k) for c in range(6) for k in range(1, 6)])
def test_pass_at_k_is_the_share_of_all_choices_with_a_pass(n: int, c: int, k: int) -> None:
    choices = list(itertools.combinations([True] * c + [False] * (n - c), k))
    assert pass_at_k(n, c, k) == pytest.approx(sum(map(any, choices)) / len(choices), abs=1e-12)


@pytest.mark.parametrize(("n", "c", "k"), [(200, 1, 100), (1000, 3, 100), (10_000, 1, 1), (100_000, 50, 1000)])
def test_pass_at_k_is_exact_for_many_samples(n: int, c: int, k: int) -> None:
    exact = 1 - Fraction(math.comb(n - c, k), math.comb(n, k))
    assert pass_at_k(n, c, k) == pytest.approx(float(exact), rel=1e-12)


def test_pass_at_k_is_unbiased() -> None:
    """Over all outcomes of n tosses with chance p its mean is 1 - (1 - p)^k."""
    n, p = 12, 0.3
    for k in (1, 5, 12):
        mean = sum(math.comb(n, c) * p**c * (1 - p) ** (n - c) * pass_at_k(n, c, k) for c in range(n + 1))
        assert mean == pytest.approx(1 - (1 - p) ** k)


@pytest.mark.parametrize(("n", "c", "k"), [(3, 4, 1), (3, -1, 1), (3, 1, 4), (3, 1, 0)])
def test_pass_at_k_refuses_counts_that_cannot_be(n: int, c: int, k: int) -> None:
    with pytest.raises(ValueError, match=r"pass@"):
        pass_at_k(n, c, k)


def test_sampled_tokens_follow_the_softmax() -> None:
    logits = torch.tensor([[0.0, 1.0, 2.0, -torch.inf]]).expand(4000, -1)
    for temperature in (0.5, 1.0):
        counts = sampled_pick(range(4000), temperature)(logits).bincount(minlength=4)
        expected = (logits[0] / temperature).softmax(dim=0)
        assert torch.allclose(counts / 4000, expected, atol=0.025)
        assert counts[3] == 0


def test_samples_repeat_and_do_not_depend_on_their_neighbours(tokenizer: Any, make_model: Any) -> None:
    model = make_model("llama")
    prompts = [list(range(4, 4 + length)) for length in (3, 9, 5, 5)]
    sampling = Sampling(1.0, (11, 12, 13, 14))
    together = find_answers(model, tokenizer, prompts, 12, 4, sampling=sampling)
    again = find_answers(model, tokenizer, prompts, 12, 2, sampling=sampling)
    alone = [find_answers(model, tokenizer, [prompts[i]], 12, 1, sampling=sampling.of([i]))[0] for i in range(4)]
    assert together == again == alone
    assert together[2].tokens != together[3].tokens  # one prompt, two seeds
    assert together != find_answers(model, tokenizer, prompts, 12, 4)
    cold = find_answers(model, tokenizer, prompts, 12, 4, sampling=Sampling(1e-4, (1, 2, 3, 4)))
    assert cold == find_answers(model, tokenizer, prompts, 12, 4)


class Dropping:
    """A tokenizer of words with their spaces that, as SentencePiece does, drops the first space of what it decodes."""

    def decode(self, tokens: list[str], **_: Any) -> str:
        return "".join(tokens).removeprefix(" ")


def test_the_indentation_of_an_answer_survives() -> None:
    prompt, tokens = [" def", " f(x):", "\n"], ["   ", " return", " x", "\nprint"]
    text = "   return x"  # what is decoded alone, cut at a stop
    assert Dropping().decode(tokens).startswith("   return")
    assert completion(Dropping(), prompt, tokens, text) == "    return x"
    assert completion(Dropping(), prompt, tokens, "") == ""
    assert completion(Dropping(), prompt, ["\n", "    pass"], "\n    pass") == "\n    pass"


def test_an_item_tells_every_sample() -> None:
    outcomes = ["pass", "fail", "timeout", *["fail"] * 7]
    item = program_items([f"c{place}" for place in range(10)], [executed(outcome) for outcome in outcomes])
    assert [sample["outcome"] for sample in item["samples"]] == outcomes
    assert item["samples"][0] == {"completion": "c0", "outcome": "pass"}
    assert item["samples"][2] == {
        "completion": "c2", "outcome": "timeout", "failure": "Odd", "message": "a message"
    }  # fmt: skip
    assert item["output"] == "c0"
    assert item["num_passes"] == 1
    assert item["pass@1"] == 0.1
    assert item["pass@10"] == 1.0
    assert "correct" not in item
    assert program_items(["c"], [executed("fail")])["correct"] is False
    assert measured_ks(9) == (1,)
    assert measured_ks(100) == (1, 10, 100)


def test_scores_count_every_sample(tokenizer: Any, make_model: Any) -> None:
    """The programs end as a stand-in says; metrics, items and seeds are the score's own."""
    ran: list[Program] = []

    def run(program: Program) -> Execution:
        ran.append(program)
        return executed({"f1": "pass", "f2": "fail", "f3": "timeout"}[program.names[0]])

    task = dataclasses.replace(TASK, num_samples=3, temperature=1.0, max_new_tokens=8)
    subject = Subject(make_model("llama"), tokenizer, "causal_lm", batch_size=4, run_program=run)
    items = [{"index": index, "prompt": ""} for index in range(3)]
    scores = score_programs(subject, task, documents(1, 2, 3), items)
    assert scores.metrics == {"pass@1": pytest.approx(1 / 3), "passes": 3.0, "fails": 3.0, "timeouts": 3.0}
    assert [item["pass@1"] for item in scores.items] == [1.0, 0.0, 0.0]
    assert len(ran) == 9
    assert {program.source for program in ran} == {
        doc(number)["prompt"] + sample["completion"]
        for number, item in zip((1, 2, 3), scores.items, strict=True)
        for sample in item["samples"]
    }
    fewer = score_programs(subject, task, documents(3), [{"index": 0, "prompt": ""}])
    assert fewer.items[0]["samples"] == scores.items[2]["samples"], "what is sampled depends on the document's name"
    greedy = dataclasses.replace(TASK, max_new_tokens=8)
    once = score_task(subject, greedy, documents(1, 2))
    assert [item["correct"] for item in once.items] == [True, False]
    assert once.metrics["passes"] + once.metrics["fails"] + once.metrics["timeouts"] == 2


def test_leave_is_asked_for_before_anything_runs() -> None:
    assert CodeExecution().runner([dataclasses.replace(TASK, kind="generate")]) is None
    with pytest.raises(SecurityError, match="E-SEC-008"):
        CodeExecution().runner([TASK])
    for wrong in (CodeExecution(num_samples=2), CodeExecution(temperature=0.5)):
        with pytest.raises(UsageError, match="E-CLI-004"):
            wrong.runner([])
    with pytest.raises(UsageError, match="all the same"):
        CodeExecution(allowed=True, num_samples=2, temperature=0.0).runner([TASK])
    if missing_isolation() is None:
        runner = CodeExecution(allowed=True).runner([TASK])
        assert runner is not None
        assert runner(Program("def f(): return 1", "assert f() == 1", ("f",))).passed
    assert CodeExecution().sampled(TASK) == TASK
    many = CodeExecution(num_samples=10).sampled(TASK)
    assert (many.num_samples, many.temperature, many.metrics) == (10, 0.8, ("pass@1", "pass@10"))


@pytest.fixture
def problems(tmp_path: Path) -> str:
    path = tmp_path / "problems.jsonl"
    path.write_text("".join(json.dumps(doc(number)) + "\n" for number in range(3)))
    return f"humaneval={path}"


def evaluate(*arguments: str) -> int:
    with pytest.raises(SystemExit) as left:
        main(["evaluate", "builtin/tiny-llama", "--tasks", "humaneval", *arguments])
    return int(left.value.code or 0)


def test_the_command_line_refuses_and_then_scores(
    problems: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert evaluate("--source", problems) == 8
    assert "E-SEC-008" in capsys.readouterr().err
    if missing_isolation() is not None:
        pytest.skip(f"namespaces are denied here: {missing_isolation()}")
    assert evaluate("--source", problems, "--allow-code-execution", "--num-samples", "2", "--json") == 0
    (outcome,) = json.loads(capsys.readouterr().out)
    assert outcome["split"] == "humaneval-2samples-t0.8"
    counts = {name: outcome["metrics"][name] for name in ("passes", "fails", "timeouts")}
    assert sum(counts.values()) == 6
