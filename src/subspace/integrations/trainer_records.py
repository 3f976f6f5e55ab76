"""What a Trainer tells of a run beside its log: a recipe of what is known, and scores by split."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from subspace.report.foreign.assemble import method_name, method_settings
from subspace.runs.durable import replace_file
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import write_json
from subspace.runs.redaction import redact_tree

__all__ = ["is_score", "stated_recipe", "trained_parameters", "write_recipe", "write_scores"]

_SPLITS = {"eval_": "validation", "test_": "test"}
"""A Trainer's prefix to our split."""
_NO_SCORES = ("_runtime", "_per_second", "_num_tokens", "_compilation_time", "_time")
_TRAINING = (
    "learning_rate",
    "lr_scheduler_type",
    "warmup_steps",
    "weight_decay",
    "max_grad_norm",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "seed",
)


def is_score(key: str) -> bool:
    """Return whether a Trainer's key is a score: times, rates and counts of the evaluation are not."""
    return not key.endswith(_NO_SCORES)


def stated_recipe(model: Any, args: Any, method: str, data: str) -> dict[str, dict[str, Any]]:
    """Return the sections of a recipe that a Trainer's model and arguments tell.

    Args:
        model: The model, or None.
        args: TrainingArguments.
        method: Name of the method; "": what the model's PEFT config says.
        data: Name of the training data; "" if it is not known.
    """
    adapters = getattr(model, "peft_config", None)
    adapter = next(iter(adapters.values())).to_dict() if isinstance(adapters, Mapping) and adapters else {}
    name = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    training = {key: getattr(args, key, None) for key in _TRAINING}
    return {
        "model": {"model_name_or_path": str(name)},
        "data": {"source": data} if data else {},
        "method": {"name": method or method_name(adapter | {"peft_type": _text(adapter.get("peft_type"))})}
        | {key: _plain(value) for key, value in method_settings(adapter).items()},
        # -1 is how the Trainer says that a limit is not set.
        "training": {key: _plain(value) for key, value in training.items() if value is not None and value != -1},
    }


def trained_parameters(model: Any) -> dict[str, int]:
    """Return the number of parameters that are trained as a field of `run_start`; nothing without a model."""
    if model is None:
        return {}
    return {"num_trained_parameters": sum(value.numel() for value in model.parameters() if value.requires_grad)}


def write_recipe(layout: RunLayout, recipe: Mapping[str, Any]) -> None:
    """Write what is known of a run as its recipe.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    import yaml

    text = yaml.safe_dump(redact_tree(recipe), sort_keys=False, allow_unicode=True)
    replace_file(layout.config, [text.encode()])


def write_scores(layout: RunLayout, logged: Mapping[str, Any], *, trained: bool) -> None:
    """Put a Trainer's scores beside those that are there; the last of a split counts.

    Args:
        layout: The run folder, made if absent.
        logged: Its metrics, by their prefix of validation (`eval_`) or test (`test_`) rows.
        trained: Whether a step was made; scores of before are those of the untuned model.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    found: dict[str, dict[str, float]] = {}
    for prefix, split in _SPLITS.items():
        for key, value in logged.items():
            if key.startswith(prefix) and is_score(key) and (number := _number(value)) is not None:
                found.setdefault(split if trained else "before", {})[key.removeprefix(prefix)] = number
    if not found:
        return
    layout.folder.mkdir(parents=True, exist_ok=True)
    write_json(layout.metrics, _earlier(layout) | found)


def _earlier(layout: RunLayout) -> dict[str, Any]:
    try:
        held = json.loads(layout.metrics.read_bytes())
    except (OSError, ValueError):
        return {}
    return held if isinstance(held, dict) else {}


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError):
        return None


def _text(value: Any) -> Any:
    """Return an enumeration's value; PEFT and transformers have texts that are enumerations."""
    return getattr(value, "value", value)


def _plain(value: Any) -> Any:
    """Return what YAML can hold: sets sorted, enumerations and the rest as text."""
    value = _text(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(_plain(item) for item in value)
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)
