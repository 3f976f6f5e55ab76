"""The demonstration: eight methods on the built-in model and task. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subspace.config.load import document_from
from subspace.data.tasks.word_problems import ANSWER_PATTERN
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.runs.store import RunFolder

__all__ = ["DEMO_METHODS", "base_metrics", "demo_config", "keep_before"]

DEMO_METHODS = ("full", "lora", "dora", "pissa", "stella", "galore", "fira", "flora")

_PROJECTED = {"rank": 32, "refresh_interval": 50, "project_embeddings": True}
_ADAPTER = {"rank": 8, "target_modules": "all-linear"}
_SETTINGS: dict[str, tuple[float, dict[str, Any]]] = {
    "full": (1e-3, {}),
    "lora": (5e-3, {**_ADAPTER, "alpha": 16.0}),
    "dora": (5e-3, {**_ADAPTER, "alpha": 16.0}),
    "pissa": (2e-3, {**_ADAPTER, "alpha": 8.0}),
    "stella": (5e-3, {**_ADAPTER, "alpha": 16.0}),
    "galore": (5e-3, {**_PROJECTED, "scale": 0.5}),
    "fira": (5e-3, {**_PROJECTED, "scale": 0.5}),
    "flora": (3e-2, {**_PROJECTED}),
}
"""Learning rate, and the rest of the method's section."""


def demo_config(method: str, folder: Path) -> RunConfig:
    """Return the recipe of one method's run in the demonstration; all have the same data order and number of steps."""
    rate, options = _SETTINGS[method]
    tree = {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "builtin/word-problems", "validation": "test", "max_length": 64},
        "method": {"name": method, **options},
        "training": {
            "output_dir": str(folder / method),
            "max_steps": 150,
            "per_device_train_batch_size": 32,
            "learning_rate": rate,
            "warmup_ratio": 0.05,
            "save_steps": 75,
        },
        "evaluation": {
            "metrics": ["loss", "exact_match"],
            "max_new_tokens": 20,
            "batch_size": 100,
            "answer_pattern": ANSWER_PATTERN,
        },
    }
    return parse_run_config(document_from(tree))[0]


def base_metrics(config: RunConfig) -> dict[str, float]:
    """Return the scores of the untuned base model on the validation rows of a recipe."""
    from subspace.evaluation.score import score
    from subspace.pipeline.build import load_base, load_data, pick_device

    data, device = load_data(config), pick_device(config)
    assert data.validation is not None
    model = load_base(config, data.labels, device)
    scores = score(
        model, data.tokenizer, data.validation.rows, config.evaluation, task=config.model.task, device=device
    )
    return scores.metrics


def keep_before(run: Path, metrics: Mapping[str, float]) -> None:
    """Keep the untuned model's scores beside those of a finished run."""
    with RunFolder.reopen(run) as folder:
        folder.write_metrics({**folder.metrics(), "before": dict(metrics)})
