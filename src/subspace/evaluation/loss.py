"""The loss of rows under a model: cross-entropy in float32, weighted by real target tokens.

b rows, t tokens, v vocabulary. Labels are -100 where a position does not count. A causal model's logits at position i
predict label i + 1; a sequence-to-sequence model's predict label i; a classifier has one label per row.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from subspace.core.errors import DataError
from subspace.evaluation.inference import device_of, looking_at
from subspace.models.split_head import SplitHead, targets_of

__all__ = ["IGNORED", "LossResult", "evaluate_loss", "row_losses"]

IGNORED = -100


class LossResult(NamedTuple):
    """Loss over a set of rows."""

    loss: float
    """Mean per target token (classification: per row), in nats."""
    num_tokens: int
    """Target tokens (rows) that counted."""


def evaluate_loss(
    model: Any,
    batches: Iterable[Mapping[str, Tensor]],
    *,
    task: str,
    device: str | torch.device | None = None,
    chunk_tokens: int | None = None,
) -> LossResult:
    """Return the mean loss over `batches`, leaving model modes, gradients and random states as they were.

    Args:
        model: A transformers model, plain or wrapped by PEFT.
        batches: What its forward takes, with `labels`: (b, t), or (b,) for classification.
        task: causal_lm, seq2seq or classification.
        device: Where batches are moved; by default where the model is.
        chunk_tokens: Positions whose logits exist at one moment; None: all.

    Raises:
        DataError: E-DAT-008 if no label counts.
    """
    total, count = 0.0, 0
    with looking_at(model):
        for batch in batches:
            sums, counts = row_losses(model, batch, task=task, device=device, chunk_tokens=chunk_tokens)
            total, count = total + float(sums.sum()), count + int(counts.sum())
    if count == 0:
        raise DataError("E-DAT-008", where="evaluation", found="no target token in any row")
    return LossResult(total / count, count)


def row_losses(
    model: Any,
    batch: Mapping[str, Tensor],
    *,
    task: str,
    device: str | torch.device | None = None,
    chunk_tokens: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the summed loss (float64) and the number of target tokens of every row, both (b,).

    Call it inside `looking_at`.
    """
    target = device_of(model) if device is None else device
    inputs: dict[str, Any] = {name: value.to(target) for name, value in batch.items()}
    labels: Tensor = inputs.pop("labels")
    if task == "classification":
        sums = functional.cross_entropy(model(**inputs).logits.float(), labels, reduction="none").double()
        return sums, torch.ones_like(labels)
    if task == "seq2seq":
        plain = model.get_base_model() if hasattr(model, "get_base_model") else model
        inputs["decoder_input_ids"] = plain.prepare_decoder_input_ids_from_labels(labels=labels)
    if chunk_tokens is not None:
        return _sum_chunks(model, inputs, labels, task, chunk_tokens)
    # Virtual tokens of a prompt method come first in the logits; counting from the end leaves them out.
    logits = model(**inputs, use_cache=False).logits[:, -labels.shape[1] :]
    return _sum_rows(logits, labels) if task == "seq2seq" else _sum_rows(logits[:, :-1], labels[:, 1:])


def _sum_chunks(model: Any, inputs: Mapping[str, Any], labels: Tensor, task: str, size: int) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy per row from the logits of `size` positions at a time."""
    head = SplitHead(model)
    hidden = head.hidden_states({**inputs, "use_cache": False})
    targets = targets_of(labels, hidden.shape[1], shifted=task == "causal_lm", ignored=IGNORED)
    flat = hidden.reshape(-1, hidden.shape[-1])
    sums = torch.zeros(labels.shape[0], dtype=torch.float64, device=labels.device)
    for start in range(0, targets.places.shape[0], size):
        places, wanted, rows = (values[start : start + size] for values in targets)
        logits = head.logits(flat.index_select(0, places)).float()
        sums.index_add_(0, rows, functional.cross_entropy(logits, wanted, reduction="none").double())
    return sums, torch.bincount(targets.rows, minlength=labels.shape[0])


def _sum_rows(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Sum the cross-entropy of logits (b, t, v) per row; only positions that count are copied to float32."""
    counted = labels != IGNORED
    losses = functional.cross_entropy(logits[counted].float(), labels[counted], reduction="none")
    sums = torch.zeros(labels.shape, dtype=torch.float64, device=labels.device)
    sums[counted] = losses.double()
    return sums.sum(dim=1), counted.sum(dim=1)
