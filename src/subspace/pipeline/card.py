"""The README.md of a run folder: what was trained, on what, how, with which scores."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace import __version__
from subspace.core.units import format_bytes, format_count, format_seconds
from subspace.methods.registry import REGISTRY
from subspace.pipeline.run_config import RunConfig

__all__ = ["model_card"]

_FIDELITY = {"paper": "the published method", "reference": "the official code, step for step"}


def model_card(config: RunConfig, summary: Mapping[str, Any]) -> str:
    """Return the model card of a finished run, as Markdown with the hub's front matter."""
    card = REGISTRY.load(config.method.name).card
    adapter = card.family not in ("full", "projection")
    base = config.model.model_name_or_path
    fidelity = getattr(config.method, "fidelity", None)
    told = f" Fidelity: `{fidelity}`, {_FIDELITY[fidelity]}." if fidelity else ""
    front = [
        "---",
        f"base_model: {base}",
        *(["library_name: peft"] if adapter else []),
        f"tags: [subspace, {config.method.name}]",
        "---",
    ]
    scores = [f"| {name} | {value:.4f} |" for name, value in summary["metrics"].items()]
    figures = {
        "optimizer steps": summary["steps"],
        "tokens seen": format_count(summary["num_tokens"]),
        "trained parameters": format_count(summary["trained_parameters"]),
        "peak memory, planned": format_bytes(summary["planned_peak_bytes"]),
        "peak memory, measured": format_bytes(summary["measured_peak_bytes"]),
        "training time": format_seconds(summary["seconds"]),
    }
    lines = [
        *front,
        f"# {base} fine-tuned with {card.name}",
        "",
        f"{card.summary} Made by subspace {__version__}.",
        "",
        f"Method: `{config.method.name}`.{told}",
        *(["", f"Reference: {card.reference}."] if card.reference else []),
        "",
        f"Data: `{config.data.source}`. Seed: {config.training.seed}.",
        "",
        "| figure | value |",
        "| --- | --- |",
        *(f"| {name} | {value} |" for name, value in figures.items()),
        "",
        "| score on the validation rows | value |",
        "| --- | --- |",
        *(scores or ["| none: the recipe names no validation rows | |"]),
        "",
        "The recipe, whole: `config.yaml`. The plan: `plan.json`. Versions and digests: `manifest.json`. "
        "The log: `unified_log.jsonl`.",
        "",
    ]
    return "\n".join(lines)
