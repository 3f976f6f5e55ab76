"""A model's score on a task, item by item: asks the model as the task says, and lets the task judge the answers.

    acc         the likeliest choice is the right one
    acc_norm    the likeliest per character of its text
    acc_bytes   the likeliest per byte of its text (UTF-8)

As in lm-evaluation-harness 0.4 the first of equals wins. What cannot be measured has an `error` and is wrong.
"""

from __future__ import annotations

import importlib
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from subspace.core.errors import ConfigError, DataError
from subspace.evaluation import metrics as measure
from subspace.evaluation.answer import Progress, classify, find_answers
from subspace.evaluation.likelihood import (
    Likelihood,
    encode_text,
    log_likelihoods,
    longest_input,
    rolling_log_likelihoods,
)
from subspace.evaluation.sandbox.program import Execution, Program
from subspace.evaluation.score import Item, Scores
from subspace.evaluation.tasks.base import Doc, Task
from subspace.evaluation.tasks.documents import Documents

__all__ = ["Subject", "answer_length", "require_able", "score_task"]


@dataclass(frozen=True)
class Subject:
    """The model that is asked.

    Attributes:
        model: A transformers model, plain or wrapped by PEFT.
        tokenizer: Its tokenizer.
        task: causal_lm, seq2seq or classification.
        labels: Names of its classes, where it has a classification head.
        batch_size: Inputs at once.
        run_program: Runs a program in the sandbox and tells what came of it; None where that is not allowed.
        progress: Called with steps done and steps in all.
    """

    model: Any
    tokenizer: Any
    task: str
    labels: tuple[str, ...] = ()
    batch_size: int = 32
    run_program: Callable[[Program], Execution] | None = None
    progress: Progress | None = field(default=None, compare=False)


def require_able(subject: Subject, task: Task) -> None:
    """Refuse a task that the model cannot be asked.

    Raises:
        ConfigError: E-EVL-001 with what it would take.
    """
    if subject.task == "classification" and task.kind != "classification":
        found, expected = "a model with a classification head", "a language model"
        advice = "This one can be asked glue/mrpc and its like, with its own classes."
    elif subject.task == "classification" and _class_order(subject.labels, task.labels) is None:
        found = f"a model with the classes {', '.join(subject.labels) or 'of nobody'}"
        expected, advice = f"the classes {', '.join(task.labels)}", "Train a head for this task."
    elif subject.task == "seq2seq" and task.kind == "perplexity":
        found, expected = "a sequence-to-sequence model", "a causal model"
        advice = "Only a causal model gives every token of a text a probability."
    elif task.kind == "code" and subject.run_program is None:
        found, expected, advice = "programs that a model wrote", "--allow-code-execution", "They run in a sandbox then."
    else:
        return
    raise ConfigError("E-EVL-001", where=f"task {task.name}", found=found, expected=expected, action=advice)


def score_task(subject: Subject, task: Task, documents: Documents) -> Scores:
    """Return the metrics of a model on a task and one item per document, in order.

    Raises:
        ConfigError: E-EVL-001 if the model cannot be asked this.
        NumericsError: E-NUM-001 if a probability is not finite.
    """
    require_able(subject, task)
    items: list[Item] = [
        {"index": index, "id": name, "prompt": task.prompt(doc)}
        for index, (name, doc) in enumerate(zip(documents.ids, documents.docs, strict=True))
    ]
    if documents.num_fewshot:
        # The shots are the same for every model; one prompt is shown whole, the others without them.
        items[0]["whole_prompt"] = task.prompt(documents.docs[0], documents.shots[0])
    if task.kind == "perplexity":
        return _score_texts(subject, documents, items)
    if subject.task == "classification":
        return _score_classes(subject, task, documents, items)
    if task.kind in ("multiple_choice", "classification"):
        return _score_choices(subject, task, documents, items)
    if task.kind == "code":
        room = importlib.import_module("subspace.evaluation.sandbox.scores")
        scores: Scores = room.score_programs(subject, task, documents, items)
        return scores
    return _score_answers(subject, task, documents, items)


def _score_choices(subject: Subject, task: Task, documents: Documents, items: list[Item]) -> Scores:
    assert task.choices is not None
    pairs: list[tuple[str, str]] = []
    places: list[slice] = []
    for doc, shots in zip(documents.docs, documents.shots, strict=True):
        found = _pairs(task, doc, shots)
        places.append(slice(len(pairs), len(pairs) + len(found)))
        pairs += found
    measured = log_likelihoods(subject.model, subject.tokenizer, pairs, subject.batch_size, subject.progress)
    rows = [measured[place] for place in places]
    golds = [_gold(task, doc) for doc in documents.docs]
    guesses = []
    for item, doc, gold, row in zip(items, documents.docs, golds, rows, strict=True):
        choices = list(task.choices(doc))
        winners = _winners(choices, row)
        guess = winners.get(task.metrics[0], winners["acc"])
        guesses.append(guess)
        item |= {"choices": choices, "log_likelihoods": [each.log_likelihood for each in row]}
        item |= {"is_greedy": [each.is_greedy for each in row], "output": choices[guess], "reference": choices[gold]}
        item |= {name: float(winners[name] == gold) for name in task.metrics if name in winners}
        error = next((each.error for each in row if each.error is not None), None)
        if error is not None:
            item |= {"error": error, "output": ""} | {name: 0.0 for name in task.metrics if name in winners}
        item["correct"] = item[task.metrics[0]] == 1.0
    return Scores(_class_metrics(task, items, guesses, golds), items)


def _pairs(task: Task, doc: Doc, shots: Sequence[Doc]) -> list[tuple[str, str]]:
    """Return context and continuation of every choice."""
    assert task.choices is not None
    before = task.preamble(doc, shots)
    if task.contexts is not None:
        return [(before + context, task.delimiter + task.target(doc)) for context in task.contexts(doc)]
    context = before + task.question(doc)
    return [(context, task.delimiter + choice) for choice in task.choices(doc)]


def _winners(choices: Sequence[str], row: Sequence[Likelihood]) -> dict[str, int]:
    sums = [each.log_likelihood for each in row]
    lengths = {
        "acc": [1] * len(choices),
        "acc_norm": [len(choice) for choice in choices],
        "acc_bytes": [len(choice.encode()) for choice in choices],
    }
    return {
        name: max(range(len(sums)), key=lambda index: sums[index] / counted[index] if counted[index] else -math.inf)
        for name, counted in lengths.items()
    }


def _gold(task: Task, doc: Doc) -> int:
    assert task.gold is not None
    assert task.choices is not None
    gold, num_choices = task.gold(doc), len(task.choices(doc))
    if not 0 <= gold < num_choices:
        raise DataError("E-DAT-006", where=f"task {task.name}", found=f"answer {gold} of {num_choices} choices")
    return gold


def _class_metrics(task: Task, items: Sequence[Item], guesses: list[int], golds: list[int]) -> dict[str, float]:
    found = {name: _mean([item[name] for item in items]) for name in task.metrics if name in items[0]}
    if "f1" in task.metrics:
        found["f1"] = measure.class_scores(guesses, golds, 2)["f1"].value
    return found


def _score_classes(subject: Subject, task: Task, documents: Documents, items: list[Item]) -> Scores:
    assert task.texts is not None
    order = _class_order(subject.labels, task.labels)
    assert order is not None
    limit = longest_input(subject.model, subject.tokenizer)
    rows = []
    for doc in documents.docs:
        text, pair = task.texts(doc)
        encoded = subject.tokenizer(text, pair, truncation="longest_first", max_length=limit)
        rows.append({name: encoded[name] for name in ("input_ids", "token_type_ids") if name in encoded})
    logits = classify(subject.model, rows, subject.batch_size, subject.progress)
    golds = [_gold(task, doc) for doc in documents.docs]
    guesses = []
    for item, row, gold in zip(items, logits, golds, strict=True):
        sorted_row = [row[place] for place in order]
        guess = max(range(len(sorted_row)), key=sorted_row.__getitem__)
        guesses.append(guess)
        item |= {"output": task.labels[guess], "reference": task.labels[gold], "correct": guess == gold}
        item |= {"acc": float(guess == gold), "logits": sorted_row}
    return Scores(_class_metrics(task, items, guesses, golds), items)


def _class_order(own: Sequence[str], wanted: Sequence[str]) -> list[int] | None:
    """Return where the task's classes stand among the model's, None if they are not the same.

    >>> _class_order(["equivalent", "not_equivalent"], ["not_equivalent", "equivalent"])
    [1, 0]
    >>> _class_order(["LABEL_0", "LABEL_1"], ["not_equivalent", "equivalent"])
    [0, 1]
    """
    plain = [label.strip().lower().replace(" ", "_") for label in own]
    if sorted(plain) == sorted(wanted):
        return [plain.index(label) for label in wanted]
    numbers = [label.removeprefix("label_") for label in plain]
    if len(own) == len(wanted) and sorted(numbers) == [str(number) for number in range(len(wanted))]:
        return [numbers.index(str(number)) for number in range(len(wanted))]
    return None


def _score_answers(subject: Subject, task: Task, documents: Documents, items: list[Item]) -> Scores:
    assert task.grade is not None
    limit = longest_input(subject.model, subject.tokenizer)
    room = answer_length(task, limit)
    kept = limit if subject.task == "seq2seq" else limit - room
    prompts, cut = [], []
    for doc, shots in zip(documents.docs, documents.shots, strict=True):
        tokens = encode_text(subject.tokenizer, task.prompt(doc, shots))
        cut.append(max(0, len(tokens) - kept))
        prompts.append(tokens[-kept:])
    last = subject.tokenizer.decode([subject.tokenizer.eos_token_id]) if subject.tokenizer.eos_token else ""
    until = tuple(text for text in (*task.until, last) if text)
    answers = find_answers(
        subject.model, subject.tokenizer, prompts, room, subject.batch_size, subject.progress, until=until
    )
    for item, doc, answer, missing in zip(items, documents.docs, answers, cut, strict=True):
        item |= {"output": answer.text, "reference": task.target(doc), "finished": answer.finished}
        item |= task.grade(doc, answer.text)
        if task.read is not None:
            item["answer"] = task.read(answer.text)
        if missing:
            item["prompt_tokens_cut"] = missing
        if answer.error is not None:
            item |= {"error": answer.error} | dict.fromkeys(task.metrics, 0.0)
        if task.metrics[0].startswith("exact_match"):
            item["correct"] = item[task.metrics[0]] == 1.0
    return Scores({name: _mean([item[name] for item in items]) for name in task.metrics}, items)


def answer_length(task: Task, limit: int) -> int:
    """Return how many tokens an answer may have: as the task says, half of the context if that leaves no prompt."""
    return task.max_new_tokens if task.max_new_tokens < limit else limit // 2


def _score_texts(subject: Subject, documents: Documents, items: list[Item]) -> Scores:
    texts = [doc["text"] for doc in documents.docs]
    found = rolling_log_likelihoods(subject.model, subject.tokenizer, texts, subject.batch_size, subject.progress)
    total = -math.fsum(each.log_likelihood for each in found)
    num_tokens = sum(each.num_tokens for each in found)
    num_words, num_bytes = sum(len(_words(text)) for text in texts), sum(len(text.encode()) for text in texts)
    for item, text, each in zip(items, texts, found, strict=True):
        item |= {"prompt": text[:200], "reference": "", "loss": -each.log_likelihood / each.num_tokens}
        item |= {"num_tokens": each.num_tokens, "num_words": len(_words(text)), "num_bytes": len(text.encode())}
    return Scores(
        {
            "perplexity": _exp(total / num_tokens),
            "word_perplexity": _exp(total / num_words),
            "byte_perplexity": _exp(total / num_bytes),
            "bits_per_byte": total / num_bytes / math.log(2),
            "loss": total / num_tokens,
        },
        items,
    )


def _words(text: str) -> list[str]:
    """Return a text split at white space; one that begins or ends with it has an empty word there, as the harness."""
    return re.split(r"\s+", text)


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)
