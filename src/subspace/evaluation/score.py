"""Scores of a model on encoded rows: the metrics of a recipe, and one record per row.

Every row ends as exactly one item, right, wrong or failed; a failed one has an `error` and counts as wrong.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from subspace.core.errors import ConfigError, DataError, NumericsError
from subspace.data.encode.encoded import Encoded
from subspace.evaluation import metrics as measure
from subspace.evaluation.answer import Progress, classify, find_answers
from subspace.evaluation.config import EvaluationConfig, chosen_metrics
from subspace.evaluation.inference import looking_at
from subspace.evaluation.loss import row_losses

__all__ = ["Scores", "require_scorable", "score"]

Item = dict[str, Any]


@dataclass(frozen=True)
class Scores:
    """What `score` found.

    Attributes:
        metrics: Name to value; shares are fractions of 1.
        items: One JSON object per row, in order: `index`, `prompt`, `reference`, and what was measured: `output`,
            `correct`, `loss`, `num_tokens`, `exact_match`, `probabilities` ...; `error` where the row failed.
    """

    metrics: dict[str, float]
    items: list[Item]

    @property
    def counts(self) -> dict[str, int]:
        """How many rows are `correct`, `wrong` and `errors`; where answers were scored they add up to `total`."""
        errors = sum("error" in item for item in self.items)
        correct = sum(item.get("correct") is True for item in self.items)
        wrong = sum(item.get("correct") is False for item in self.items) - errors
        return {"total": len(self.items), "correct": correct, "wrong": wrong, "errors": errors}


def score(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    config: EvaluationConfig,
    *,
    task: str,
    device: str | torch.device,
    progress: Progress | None = None,
    chunk_tokens: int | None = None,
) -> Scores:
    """Measure `model` on `rows`, leaving its modes and the random states as they were.

    Args:
        model: A transformers model, plain or wrapped by PEFT.
        tokenizer: Its tokenizer.
        rows: Encoded rows (`data.encode`), unpacked.
        config: Which metrics, and how answers are made and read.
        task: causal_lm, seq2seq or classification.
        device: Where the model is.
        progress: Called with rows done and rows in all, counting a row once for its loss and once for its answer.
        chunk_tokens: Positions whose logits exist at one moment while losses are measured; None: all.

    Raises:
        ConfigError: E-EVL-001 if a metric does not fit the task or the rows; E-CFG-010 if `answer_pattern` matches no
            reference.
        DataError: E-DAT-016 without rows.
        NumericsError: E-NUM-001 if a loss is not finite.
    """
    names = chosen_metrics(config, task)
    if not len(rows):
        raise DataError("E-DAT-016", where="evaluation", found="no rows to score", action="Give at least one row.")
    if task == "classification":
        return _score_classes(model, tokenizer, rows, config, names, progress)
    items: list[Item] = [
        {"index": index, "prompt": _decode(tokenizer, row.prompt_ids), "reference": row.reference}
        for index, row in enumerate(rows)
    ]
    with_loss = "loss" in names or "perplexity" in names
    with_answers = _needs_answers(names)
    total = len(rows) * (with_loss + with_answers)
    found: dict[str, float] = {}
    if with_loss:
        told = None if progress is None else _shifted(progress, 0, total)
        found |= _score_losses(model, tokenizer, rows, config, items, task, device, told, chunk_tokens)
    if with_answers:
        told = None if progress is None else _shifted(progress, len(rows) * with_loss, total)
        found |= _score_answers(model, tokenizer, rows, config, items, told)
    return Scores({name: found[name] for name in _expanded(names)}, items)


def require_scorable(rows: Sequence[Encoded], config: EvaluationConfig, task: str) -> None:
    """Refuse metrics that rows cannot give, before hours are spent on a model to be scored by them.

    Raises:
        ConfigError: E-EVL-001 if a metric does not fit the task or the rows; E-CFG-010 if `answer_pattern` matches no
            reference.
    """
    if _needs_answers(chosen_metrics(config, task)):
        _wanted_answers(rows, config.answer_pattern)


def _needs_answers(names: Sequence[str]) -> bool:
    return "exact_match" in names or "rouge" in names


def _expanded(names: Sequence[str]) -> list[str]:
    parts = {"exact_match": ["exact_match", "exact_match_normalized"], "rouge": ["rouge1", "rouge2", "rougeL"]}
    return [part for name in names for part in parts.get(name, [name])]


def _shifted(progress: Progress, before: int, total: int) -> Progress:
    return lambda done, _: progress(before + done, total)


def _score_losses(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    config: EvaluationConfig,
    items: list[Item],
    task: str,
    device: str | torch.device,
    progress: Progress | None,
    chunk_tokens: int | None,
) -> dict[str, float]:
    """Put `loss` and `num_tokens` into the items; return loss and perplexity per target token."""
    from subspace.data.batches import collate

    order = sorted(range(len(rows)), key=lambda index: (-len(rows[index].input_ids), index))
    with looking_at(model):
        for start in range(0, len(order), config.batch_size):
            chosen = order[start : start + config.batch_size]
            batch = collate([rows[index] for index in chosen], tokenizer.pad_token_id)
            sums, counts = row_losses(model, batch, task=task, device=device, chunk_tokens=chunk_tokens)
            for index, summed, count in zip(chosen, sums.tolist(), counts.tolist(), strict=True):
                items[index]["loss"] = _finite(summed / count, index) if count else None
                items[index]["num_tokens"] = count
            if progress is not None:
                progress(start + len(chosen), len(rows))
    counted = [item for item in items if item["num_tokens"]]
    losses, weights = [item["loss"] for item in counted], [item["num_tokens"] for item in counted]
    if not counted:
        raise DataError("E-DAT-008", where="evaluation", found="no row keeps a target token")
    return {
        "loss": measure.mean_loss(losses, weights).value,
        "perplexity": measure.perplexity(losses, weights).value,
    }


def _score_answers(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    config: EvaluationConfig,
    items: list[Item],
    progress: Progress | None,
) -> dict[str, float]:
    """Generate, put what was said and how right it is into the items; return exact match and ROUGE."""
    wanted = _wanted_answers(rows, config.answer_pattern)
    prompts = [list(row.prompt_ids) for row in rows]
    answers = find_answers(model, tokenizer, prompts, config.max_new_tokens, config.batch_size, progress)
    told: list[str | None] = []
    for item, answer, reference in zip(items, answers, wanted, strict=True):
        said = _read(answer.text, config.answer_pattern)
        item |= {"output": answer.text, "finished": answer.finished}
        if config.answer_pattern is not None:
            item |= {"answer": said, "reference_answer": reference}
        if answer.error is not None or reference is None:
            item["error"] = answer.error or "the reference is absent or holds no match of answer_pattern"
            said = None
        told.append(said)
    texts = [text or "" for text in told]
    references = [reference or "" for reference in wanted]
    found = {
        "exact_match": measure.exact_match(texts, references),
        "exact_match_normalized": measure.exact_match(texts, references, normalized=True),
    } | measure.rouge(texts, references)
    values = {name: list(measured.per_item) for name, measured in found.items()}
    for index, (item, said) in enumerate(zip(items, told, strict=True)):
        for name, per_item in values.items():
            if said is None:  # no answer is wrong even where the reference is empty
                per_item[index] = 0.0
            item[name] = per_item[index]
        item["correct"] = item["exact_match"] == 1.0
    return {name: math.fsum(per_item) / len(per_item) for name, per_item in values.items()}


def _wanted_answers(rows: Sequence[Encoded], pattern: str | None) -> list[str | None]:
    if not any(len(row.prompt_ids) and row.reference is not None for row in rows):
        raise ConfigError(
            "E-EVL-001",
            where="evaluation.metrics",
            found="no row has both a prompt and an answer to compare with",
            expected="loss or perplexity for plain text",
        )
    wanted = [None if row.reference is None else _read(row.reference, pattern) for row in rows]
    if all(reference is None for reference in wanted):
        raise ConfigError(
            "E-CFG-010",
            where="evaluation.answer_pattern",
            found=f"{pattern!r} matches none of {len(wanted)} references",
            expected="a regular expression that finds the answer in every reference",
            action="Correct or remove it.",
        )
    return wanted


def _read(text: str, pattern: str | None) -> str | None:
    return text.strip() if pattern is None else measure.extract_answer(text, pattern)


def _score_classes(
    model: Any,
    tokenizer: Any,
    rows: Sequence[Encoded],
    config: EvaluationConfig,
    names: Sequence[str],
    progress: Progress | None,
) -> Scores:
    labels = [row.label for row in rows if row.label is not None]
    if len(labels) < len(rows):
        raise DataError("E-DAT-006", where="evaluation", found=f"{len(rows) - len(labels)} rows without a label")
    inputs: list[Mapping[str, Sequence[int]]] = [
        {name: ids for name in ("input_ids", "token_type_ids") if (ids := getattr(row, name, None)) is not None}
        for row in rows
    ]
    logits = torch.tensor(classify(model, inputs, config.batch_size, progress), dtype=torch.float64)
    logs = logits.log_softmax(dim=1)
    predicted = logits.argmax(dim=1).tolist()
    name_of: Callable[[int], str] = lambda index: str(model.config.id2label.get(index, index))  # noqa: E731
    items: list[Item] = []
    for index, (row, label, guess) in enumerate(zip(rows, labels, predicted, strict=True)):
        items.append(
            {
                "index": index,
                "prompt": _decode(tokenizer, row.input_ids),
                "output": name_of(guess),
                "reference": name_of(label),
                "correct": guess == label,
                "loss": _finite(-float(logs[index, label]), index),
                "probabilities": logs[index].exp().tolist(),
            }
        )
    found = {
        name: measured.value for name, measured in measure.class_scores(predicted, labels, logits.shape[1]).items()
    }
    found["loss"] = math.fsum(item["loss"] for item in items) / len(items)
    return Scores({name: found[name] for name in names}, items)


def _finite(loss: float, index: int) -> float:
    if not math.isfinite(loss):
        raise NumericsError(
            "E-NUM-001",
            where=f"evaluation row {index}",
            found=f"the loss is {loss}",
            action="The model's weights or activations overflow; try training.mixed_precision bf16 or no.",
        )
    return loss


def _decode(tokenizer: Any, tokens: Sequence[int]) -> str:
    return str(tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False))
