"""The demonstration: eight methods on the built-in model and task, three seeds each. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.data.tasks.word_problems import ANSWER_PATTERN
from subspace.runs.store import RunFolder

if TYPE_CHECKING:
    from subspace.pipeline.run_config import RunConfig

__all__ = ["DEMO_METHODS", "DEMO_SEEDS", "DEMO_STEPS", "base_metrics", "demo_matrix", "keep_before"]

DEMO_METHODS = ("full", "lora", "dora", "pissa", "stella", "galore", "fira", "flora")
DEMO_SEEDS = (42, 43, 44)
DEMO_STEPS = 120

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


def demo_matrix() -> dict[str, Any]:
    """Return the matrix of the demonstration; all methods have the same data order and number of steps."""
    return {
        "name": "eight methods on word problems",
        "recipe": {
            "model": {"model_name_or_path": "builtin/tiny-llama"},
            "data": {"source": "builtin/word-problems", "validation": "test", "max_length": 64},
            "training": {
                "per_device_train_batch_size": 16,
                "warmup_ratio": 0.05,
                "save_steps": max(DEMO_STEPS // 2, 1),
            },
            "evaluation": {
                "metrics": ["exact_match", "loss"],
                "max_new_tokens": 20,
                "batch_size": 100,
                "answer_pattern": ANSWER_PATTERN,
            },
        },
        "tasks": {"word-problems": {"metric": "exact_match"}},
        "arms": {
            name: {
                "method": {"name": name, **_SETTINGS[name][1]},
                "training": {"learning_rate": _SETTINGS[name][0]},
            }
            for name in DEMO_METHODS
        },
        "seeds": list(DEMO_SEEDS),
        "budget": {"steps": DEMO_STEPS},
        "score_base": True,
    }


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
