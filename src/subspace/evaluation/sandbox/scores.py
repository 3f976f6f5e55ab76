"""Scores of a model on a task of programs: complete, run, count.

pass@1, pass@10, pass@100   for every k up to the number of samples per document
passes, fails, timeouts     samples by outcome; together all samples
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from subspace.core.seeding import derive_seed
from subspace.evaluation.pass_at_k import pass_at_k
from subspace.evaluation.sandbox.program import Execution

if TYPE_CHECKING:
    from subspace.evaluation.score import Scores
    from subspace.evaluation.task_scores import Subject
    from subspace.evaluation.tasks.base import Task
    from subspace.evaluation.tasks.documents import Documents

__all__ = ["completion", "measured_ks", "program_items", "score_programs"]

_SAMPLING_SEED = 0
_WORKERS = 2  # a program under test is judged by the clock, so that few may share the processors
_PLURALS = {"pass": "passes", "fail": "fails", "timeout": "timeouts"}


def measured_ks(num_samples: int) -> tuple[int, ...]:
    """Return the k of pass@k that so many samples can tell.

    >>> measured_ks(20)
    (1, 10)
    """
    return tuple(k for k in (1, 10, 100) if k <= num_samples)


def score_programs(subject: Subject, task: Task, documents: Documents, items: list[dict[str, Any]]) -> Scores:
    """Ask a model for programs, run them, and return metrics and one item per document.

    The samples of a document depend on its name and their number, not on the order or the number of documents.
    """
    from subspace.evaluation.answer import Sampling, find_answers
    from subspace.evaluation.likelihood import encode_text, longest_input
    from subspace.evaluation.score import Scores
    from subspace.evaluation.task_scores import answer_length

    assert task.program is not None
    assert subject.run_program is not None
    count = task.num_samples
    room = answer_length(task, limit := longest_input(subject.model, subject.tokenizer))
    kept = limit if subject.task == "seq2seq" else limit - room
    prompts = [
        encode_text(subject.tokenizer, task.prompt(doc, shots))[-kept:]
        for doc, shots in zip(documents.docs, documents.shots, strict=True)
        for _ in range(count)
    ]
    seeds = [derive_seed(_SAMPLING_SEED, task.name, name, sample) for name in documents.ids for sample in range(count)]
    answers = find_answers(
        subject.model,
        subject.tokenizer,
        prompts,
        room,
        subject.batch_size,
        subject.progress,
        until=task.until,
        sampling=Sampling(task.temperature, tuple(seeds)) if task.temperature > 0 else None,
    )
    completions = [
        completion(subject.tokenizer, prompt, answer.tokens, answer.text)
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    programs = [task.program(documents.docs[place // count], text) for place, text in enumerate(completions)]
    with ThreadPoolExecutor(_WORKERS) as pool:
        executions = list(pool.map(subject.run_program, programs))
    for place, item in enumerate(items):
        mine = slice(place * count, (place + 1) * count)
        item["reference"] = task.target(documents.docs[place])
        item |= program_items(completions[mine], executions[mine])
        errors = [answer.error for answer in answers[mine] if answer.error is not None]
        if errors:
            item["error"] = errors[0]
    return Scores(_metrics(items, count), items)


def completion(tokenizer: Any, prompt: Sequence[int], tokens: Sequence[int], text: str) -> str:
    """Return an answer with the spaces that it begins with.

    Tokenizers of the SentencePiece kind drop a space at the beginning of what they decode, and with it the indentation
    of a function's body; behind the prompt they do not.
    """
    before, whole = (
        str(tokenizer.decode(row, skip_special_tokens=True, clean_up_tokenization_spaces=False))
        for row in (list(prompt), [*prompt, *tokens])
    )
    if not text or not whole.startswith(before):
        return text
    after = whole[len(before) :]
    return after[: len(after) - len(after.lstrip(" "))] + text.lstrip(" ")


def program_items(completions: Sequence[str], executions: Sequence[Execution]) -> dict[str, Any]:
    """Return what an item tells of the samples of one document.

    `samples` has for each its completion, outcome (pass, fail or timeout), and of a failure its kind and message.
    """
    count = len(completions)
    samples = []
    for text, execution in zip(completions, executions, strict=True):
        sample: dict[str, Any] = {"completion": text, "outcome": execution.outcome}
        if not execution.passed:
            sample |= {"failure": execution.error, "message": execution.message}
        samples.append(sample)
    passes = sum(execution.passed for execution in executions)
    item = {"output": completions[0], "outcome": executions[0].outcome, "samples": samples, "num_passes": passes}
    item |= {f"pass@{k}": pass_at_k(count, passes, k) for k in measured_ks(count)}
    if count == 1:
        item["correct"] = executions[0].passed
    return item


def _metrics(items: Sequence[dict[str, Any]], count: int) -> dict[str, float]:
    names = [f"pass@{k}" for k in measured_ks(count)]
    found = {name: math.fsum(item[name] for item in items) / len(items) for name in names}
    outcomes = Counter(sample["outcome"] for item in items for sample in item["samples"])
    return found | {plural: float(outcomes[outcome]) for outcome, plural in _PLURALS.items()}
