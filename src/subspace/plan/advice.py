"""The overrides most worth trying when memory runs out, each with the saving that the plan itself predicts."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from subspace.core.units import format_bytes
from subspace.plan.plan import Plan

__all__ = ["Suggestion", "suggest", "suggestions"]

_NF4_BYTES = 0.516
"""Of a weight in nf4 with double quantization (4 bits, a byte per 64 weights, and their scales)."""
_MIN_LENGTH = 64
_CHUNK = 256
_MIN_SHARE = 0.01
"""Savings below this share of the peak are not worth a run."""


@dataclass(frozen=True, slots=True)
class Suggestion:
    """An override, what else it changes, and the bytes of peak memory that it saves."""

    override: str
    effect: str
    saved_bytes: int

    def __str__(self) -> str:
        return f"{self.override} saves about {format_bytes(self.saved_bytes)} ({self.effect})"


def suggest(plan: Plan, refused: Collection[str] = ()) -> tuple[str, ...]:
    """Return `suggestions` as sentences.

    >>> suggest(plan)[0]  # doctest: +SKIP
    'training.gradient_checkpointing=true saves about 4.01 GiB (blocks are computed twice)'
    """
    return tuple(str(suggestion) for suggestion in suggestions(plan, refused))


def suggestions(plan: Plan, refused: Collection[str] = ()) -> tuple[Suggestion, ...]:
    """Return the overrides that lower the peak, the largest saving first.

    Args:
        plan: Of the run that did not fit.
        refused: Dotted recipe keys that the method cannot be combined with.
    """
    found = [
        item
        for item in (*_smaller_batches(plan), *_other_storage(plan))
        if item.saved_bytes >= _MIN_SHARE * plan.peak_bytes and item.override.partition("=")[0] not in refused
    ]
    return tuple(sorted(found, key=lambda item: -item.saved_bytes))


def _smaller_batches(plan: Plan) -> list[Suggestion]:
    """Return what shrinks the activations, which grow with rows and tokens."""
    batch, found = plan.batch, []

    def saved(transient: float) -> int:
        return round(plan.working_bytes - plan.gradient_bytes - max(transient, plan.step_bytes))

    if batch.batch_size > 1:
        rows = batch.batch_size // 2
        override, effect = f"training.per_device_train_batch_size={rows}", "fewer rows in every step"
        if batch.batch_size % 2 == 0:
            override += f" training.gradient_accumulation_steps={batch.accumulation * 2}"
            effect = "the same rows in every step, slower"
        found.append(Suggestion(override, effect, saved(plan.transient_bytes * rows / batch.batch_size)))
    if not batch.gradient_checkpointing:
        rest = plan.transient_bytes - plan.activation_bytes + _checkpointed_bytes(plan)
        found.append(Suggestion("training.gradient_checkpointing=true", "blocks are computed twice", saved(rest)))
    positions = batch.batch_size * batch.length
    if batch.loss_chunk_tokens is None and plan.task != "classification" and positions >= 2 * _CHUNK:
        rest = plan.transient_bytes - round(plan.logits_bytes * (1 - _CHUNK / positions))
        effect = "logits are made and used piece by piece"
        found.append(Suggestion(f"training.loss_chunk_tokens={_CHUNK}", effect, saved(rest)))
    if batch.length >= 2 * _MIN_LENGTH:
        override = f"data.max_length={batch.length // 2}"
        found.append(Suggestion(override, "longer rows are cut", saved(plan.transient_bytes / 2)))
    return found


def _checkpointed_bytes(plan: Plan) -> int:
    """Estimate what recomputation would keep: the input of every block, one block, and what lies outside them."""
    outside = min(plan.logits_bytes, plan.activation_bytes)
    block = (plan.activation_bytes - outside) // max(1, plan.num_layers)
    inputs = plan.num_layers * plan.batch.batch_size * plan.batch.length * plan.hidden_size * 4
    return min(plan.activation_bytes, outside + block + inputs)


def _other_storage(plan: Plan) -> list[Suggestion]:
    """Return what holds weights and optimizer state in fewer bytes."""
    found = []
    if plan.quantizable_parameters:
        saved = plan.quantizable_bytes - round(plan.quantizable_parameters * _NF4_BYTES)
        found.append(Suggestion("model.quantization=nf4", "frozen weights are rounded to 4 bits", saved))
    if plan.weight_bytes >= 3 * plan.num_parameters:  # most weights are float32
        found.append(Suggestion("model.dtype=bfloat16", "weights are rounded to 16 bits", plan.weight_bytes // 2))
    if plan.optimizer_state_bytes >= 8 * plan.trained_parameters:  # two float32 moments
        saved = plan.optimizer_state_bytes - 2 * plan.trained_parameters
        found.append(Suggestion("training.optim=adamw_8bit", "moments are rounded to 8 bits", saved))
    return found
