"""Scoring a finished run again, on its validation rows or on others."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from subspace.config.load import read_document, with_overrides
from subspace.core.errors import UsageError
from subspace.pipeline.loaded import load_result, run_config_of
from subspace.pipeline.run_config import parse_run_config
from subspace.runs.layout import RunLayout, is_split_name
from subspace.runs.store import RunFolder

__all__ = ["evaluate_run"]

_OPEN_SECTIONS = ("data.", "evaluation.")


def evaluate_run(
    run: Path,
    overrides: Sequence[str] = (),
    *,
    name: str = "validation",
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, float]:
    """Return the scores of a finished run and keep them, with one prediction per item, in its folder.

    Args:
        run: A finished run.
        overrides: Of the sections `data` and `evaluation`, such as `data.validation=test`.
        name: Under which scores and predictions are kept.
        device: Torch device.
        progress: Called with items done and items in all.

    Raises:
        UsageError: E-CLI-004 for an override that would make it another run; E-CLI-001 for a name that is none.
        CheckpointError: E-CKP-001 if it is not a finished run; what loading raises.
    """
    from subspace.data.prepare import prepare
    from subspace.evaluation.score import score

    for override in overrides:
        if not override.startswith(_OPEN_SECTIONS):
            raise UsageError(
                "E-CLI-004",
                where=override,
                found="a finished run cannot be changed",
                expected="overrides of data and evaluation",
                action="Train another run.",
            )
    if not is_split_name(name):
        raise UsageError("E-CLI-001", where="--name", found=repr(name), expected="letters, digits, dots, dashes")
    run_config_of(run)
    config, _ = parse_run_config(with_overrides(read_document(RunLayout(run).config), overrides))
    loaded = load_result(str(run), device=device)
    data = config.data.model_copy(update={"labels": loaded.labels}) if loaded.labels else config.data
    task = config.model.task
    rows = prepare(data, loaded.tokenizer, task=task, split="validation").rows
    options: dict[str, Any] = {"progress": progress, "chunk_tokens": config.training.loss_chunk_tokens}
    scores = score(loaded.model, loaded.tokenizer, rows, config.evaluation, task=task, device=loaded.device, **options)
    with RunFolder.reopen(run) as folder:
        folder.write_predictions(name, scores.items)
        folder.write_metrics({**folder.metrics(), name: scores.metrics})
    return scores.metrics
