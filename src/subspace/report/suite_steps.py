"""The log of a run as the suite's `metrics`: an entry an evaluation, and a last one that holds the score."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.report.record import RunRecord
from subspace.report.values import dig, number

__all__ = ["batch_of", "suite_metrics"]

_CLOCK = {
    "elapsed_seconds": "elapsed time",
    "tokens_per_second": "tokens / sec",
    "allocated_bytes": "mem allocated avg",
    "reserved_bytes": "mem reserved avg",
}
_NO_SCORES = frozenset({"schema", "event", "step", "split", "machine", "epoch", "num_targets", "nonfinite"})
_SHARES = ("exact_match", "acc")


def suite_metrics(record: RunRecord, score: float | None) -> list[dict[str, Any]]:
    """Return the entries; the last one is what the suite's reader looks at.

    Args:
        record: The run.
        score: What stands as `test accuracy`; None where no score is a share of right answers.
    """
    entries: list[dict[str, Any]] = []
    losses: list[float] = []
    mean = None
    for found in record.log:
        step = number(found.get("step"))
        if step is None:
            continue
        if found.get("event") == "step" and (loss := number(found.get("loss"))) is not None:
            losses.append(loss)
        elif found.get("event") == "eval":
            mean = sum(losses) / len(losses) if losses else mean
            losses = []
            entries.append(_evaluation(record, found, int(step), mean))
    mean = sum(losses) / len(losses) if losses else mean
    final = {
        "step": record.last_step,
        "test accuracy": score,
        "train loss": mean,
        "train samples": record.last_step * batch_of(record),
        "train total tokens": int(_tokens(record)),
        "forgetting": record.scores.get("forgetting"),
    }
    return [*entries, final]


def batch_of(record: RunRecord) -> int:
    """Return the rows of an optimizer step; 0 if the recipe does not tell."""
    rows = number(dig(record.config, "training", "per_device_train_batch_size"))
    return int((rows or 0) * (number(dig(record.config, "training", "gradient_accumulation_steps")) or 1))


def _evaluation(record: RunRecord, found: Mapping[str, Any], step: int, mean: float | None) -> dict[str, Any]:
    scores = {key: value for key in found if key not in _NO_SCORES and (value := number(found[key])) is not None}
    share = next((scores[name] for name in _SHARES if name in scores), None)
    clock = {theirs: number(dig(found, "machine", ours)) for ours, theirs in _CLOCK.items()}
    return {
        "step": step,
        **({} if share is None or "accuracy" in scores else {"valid accuracy": share}),
        **{f"valid {name}": value for name, value in scores.items()},
        "train loss": mean,
        "train samples": step * batch_of(record),
        **{name: value for name, value in clock.items() if value is not None},
    }


def _tokens(record: RunRecord) -> float:
    stored = number(dig(record.manifest, "summary", "num_tokens"))
    logged = (number(entry.get("num_tokens")) for entry in reversed(record.log) if entry.get("event") == "step")
    return stored if stored is not None else next((value for value in logged if value is not None), 0.0)
