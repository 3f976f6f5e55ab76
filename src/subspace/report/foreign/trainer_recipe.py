"""What was trained and how, as far as an output folder of the Trainer tells: adapter, model card, recipe."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from subspace.report.foreign.assemble import Found, method_name, method_settings
from subspace.report.foreign.files import as_number, mapping, read_object

__all__ = ["read_recipe"]

_CARD_LINE = re.compile(r"^- (\w+): (\S+)\s*$", re.MULTILINE)
_FROM_CARD = {"seed": "seed", "learning_rate": "learning_rate", "lr_scheduler_type": "lr_scheduler_type"}
_FROM_YAML = (
    "learning_rate",
    "lr_scheduler_type",
    "max_steps",
    "num_train_epochs",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "weight_decay",
    "warmup_ratio",
    "max_grad_norm",
)
_RECIPE_SEED = 42
"""Seed of transformers where a recipe states none."""
_MOST_RECIPES = 10
_WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json")


def read_recipe(folder: Path, checkpoint: Path, found: Found) -> None:
    """Fill in model, data, method and training from what lies in an output folder or in its last checkpoint."""
    card = _card(folder)
    recipe = _llamafactory(folder)
    adapter = _first(folder, checkpoint, "adapter_config.json", found)
    whole = any((place / name).is_file() for place in (folder, checkpoint) for name in _WEIGHTS)
    model = adapter.get("base_model_name_or_path") or recipe.get("model_name_or_path")
    if model is None and whole:
        model = _first(folder, checkpoint, "config.json", found).get("_name_or_path")
    name = _optimizer_method(recipe) or method_name(adapter) or _finetuning_type(recipe)
    found.config["model"] = {"model_name_or_path": model or card.get("base_model")}
    found.config["data"] = {"source": recipe.get("dataset"), "max_length": recipe.get("cutoff_len")}
    found.config["method"] = {"name": name or ("full" if whole and not adapter else ""), **method_settings(adapter)}
    stated = {
        key: as_number(recipe[key]) if _is_number(recipe[key]) else recipe[key] for key in _FROM_YAML if key in recipe
    }
    told = {ours: _value(card[theirs]) for theirs, ours in _FROM_CARD.items() if theirs in card}
    seed = as_number(recipe.get("seed", _RECIPE_SEED)) if recipe else as_number(card.get("seed"))
    found.config["training"] |= told | stated | {"seed": None if seed is None else int(seed)}
    found.facts["seed"] = None if seed is None else int(seed)


def _first(folder: Path, checkpoint: Path, name: str, found: Found) -> Mapping[str, Any]:
    for place in (folder, checkpoint):
        if (place / name).is_file():
            return read_object(place / name, found.notes)
    return {}


def _card(folder: Path) -> dict[str, str]:
    """Return the figures that the Trainer writes into a model card, and the base model of its head."""
    try:
        text = (folder / "README.md").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    base = re.search(r"^base_model: (\S+)\s*$", text, re.MULTILINE)
    return dict(_CARD_LINE.findall(text)) | ({"base_model": base[1]} if base else {})


def _llamafactory(folder: Path) -> Mapping[str, Any]:
    """Return the LLaMA-Factory recipe that lies in the folder; an empty one if none or more than one does."""
    import yaml

    found = []
    for path in sorted([*folder.glob("*.yaml"), *folder.glob("*.yml")])[:_MOST_RECIPES]:
        try:
            tree = yaml.safe_load(path.read_bytes())
        except (OSError, yaml.YAMLError, RecursionError, ValueError):
            continue
        if isinstance(tree, dict) and "finetuning_type" in tree:
            found.append(tree)
    return found[0] if len(found) == 1 else {}


def _optimizer_method(recipe: Mapping[str, Any]) -> str:
    return next((name for name in ("galore", "apollo", "badam") if recipe.get(f"use_{name}") is True), "")


def _finetuning_type(recipe: Mapping[str, Any]) -> str:
    if recipe.get("use_dora") is True:
        return "dora"
    if recipe.get("pissa_init") is True:
        return "pissa"
    found = mapping(recipe).get("finetuning_type")
    return found if isinstance(found, str) else ""


def _is_number(value: Any) -> bool:
    return as_number(value) is not None


def _value(text: str) -> float | str:
    found = as_number(text)
    return text if found is None else found
