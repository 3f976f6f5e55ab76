"""The loss of a micro-batch: a sum over targets, so that accumulation weighs every target alike.

b rows, t positions, v vocabulary, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from subspace.models.split_head import SplitHead, targets_of
from subspace.training.chunked_loss import chunked_cross_entropy

__all__ = ["IGNORED", "count_targets", "count_tokens", "summed_loss"]

IGNORED = -100
"""Label of a position that has no loss."""


def count_targets(batch: Mapping[str, Tensor], task: str) -> int:
    """Return how many targets a batch has: tokens, or rows for classification."""
    labels = batch["labels"]
    if task == "causal_lm":
        return int((labels[:, 1:] != IGNORED).sum())
    return int((labels != IGNORED).sum())


def count_tokens(batch: Mapping[str, Tensor]) -> int:
    """Return the input tokens of a batch without padding; packed batches have none and carry no mask."""
    mask = batch.get("attention_mask")
    return batch["input_ids"].numel() if mask is None else int(mask.sum())


def summed_loss(model: nn.Module, batch: Mapping[str, Tensor], task: str, chunk_tokens: int | None = None) -> Tensor:
    """Return the cross-entropy summed over the targets of `batch`, in float32.

    Args:
        model: Gives `.logits`: (b, t, v) or (b, c). Positions that a prompt method puts in front are cut off.
        batch: `input_ids`, `attention_mask`, `labels` and what else the model takes.
        task: causal_lm, seq2seq or classification.
        chunk_tokens: Positions whose logits exist at one moment; None: all. Classes are never cut.

    Raises:
        ConfigError: E-CFG-014 if the loss of this model cannot be cut into chunks.
    """
    inputs: dict[str, Any] = {name: value for name, value in batch.items() if name != "labels"}
    labels = batch["labels"]
    if task == "seq2seq":
        inputs["decoder_input_ids"] = _shift_right(model, labels)
    if task != "classification":
        inputs["use_cache"] = False
        if chunk_tokens is not None:
            head = SplitHead(model)
            hidden = head.hidden_states(inputs)
            targets = targets_of(labels, hidden.shape[1], shifted=task == "causal_lm", ignored=IGNORED)
            return chunked_cross_entropy(head, hidden, targets, chunk_tokens)
    logits: Tensor = model(**inputs).logits
    if task == "causal_lm":
        logits = logits[:, -labels.shape[1] :]
        labels = functional.pad(labels[:, 1:], (0, 1), value=IGNORED)
    elif task == "seq2seq":
        logits = logits[:, -labels.shape[1] :]
    return functional.cross_entropy(
        logits.float().reshape(-1, logits.shape[-1]), labels.reshape(-1), ignore_index=IGNORED, reduction="sum"
    )


def _shift_right(model: nn.Module, labels: Tensor) -> Tensor:
    """Return what the decoder reads: the start token, then every target but the last."""
    config: Any = model.config
    start = config.decoder_start_token_id if config.decoder_start_token_id is not None else config.pad_token_id
    shifted = torch.full_like(labels, start)
    shifted[:, 1:] = labels[:, :-1]
    return shifted.masked_fill(shifted == IGNORED, config.pad_token_id)
