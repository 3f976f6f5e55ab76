"""Which model, length and batch fits which card with which method: peaks that the plans predict, nothing is run.

python benchmarks/frontier.py --out docs/results/frontier

Writes frontier.json and frontier.md. Every setting has the savings that change no result (blocks recomputed, loss in
chunks); the methods differ in what they are.
"""

from __future__ import annotations

import argparse
import functools
import json
import sys
from collections.abc import Callable, Iterator
from datetime import date
from itertools import product
from pathlib import Path
from typing import Any

from subspace.config.load import document_from
from subspace.core.errors import SubspaceError
from subspace.pipeline import planning
from subspace.pipeline.run_config import parse_run_config
from subspace.plan.plan import Plan

MODELS = {
    "0.5B": "Qwen/Qwen2-0.5B",
    "1B": "meta-llama/Llama-3.2-1B",
    "3B": "meta-llama/Llama-3.2-3B",
    "7B": "meta-llama/Llama-2-7b-hf",
}
LENGTHS, BATCHES, CARDS = (512, 2048), (1, 8), (4, 8, 16, 24)
RESERVE_BYTES = 600 * 2**20
"""For what no plan counts: a GPU's context, libraries, an allocator's slack."""
GALORE: dict[str, Any] = {"name": "galore", "rank": 256, "project_embeddings": True}
LORA: dict[str, Any] = {"name": "lora", "rank": 16, "alpha": 32.0, "target_modules": "all-linear"}
SETTINGS: dict[str, dict[str, dict[str, Any]]] = {
    "AdamW": {"method": {"name": "full"}},
    "AdamW-8bit": {"method": {"name": "full"}, "training": {"optim": "adamw_8bit"}},
    "GaLore": {"method": GALORE},
    "GaLore-8bit-int8": {
        "method": {
            **GALORE,
            "basis": "randomized",
            "state_bits": 8,
            "update": "in_backward",
            "refresh_from": "micro_batch",
        },
        "model": {"trained_weights": "int8"},
    },
    "LoRA": {"method": LORA},
    "QLoRA": {"method": LORA, "model": {"quantization": "nf4"}},
}
INTRODUCTION = """\
Predicted peaks in GiB and, after the arrow, the smallest card of 4, 8, 16 and 24 GB that holds them with {reserve} MiB
to spare for a GPU's context and an allocator's slack. From plans alone: nothing was run.

All: weights in bfloat16, blocks recomputed, loss in chunks of 256 positions, one micro-batch to a step, rows of full
length. AdamW: moments in float32. GaLore: rank 256, embedding and head projected, bases by svd as published; the svd of
an embedding is the most that its step takes for a moment. GaLore-8bit-int8: bases by a randomized sketch, moments of 8
bits, weights as int8 codes, updates in the backward pass. LoRA: rank 16 on every linear layer. QLoRA: the same beside
weights in nf4."""
FIGURES = ("weight_bytes", "optimizer_state_bytes", "gradient_bytes", "transient_bytes", "peak_bytes")


def tree_of(model: str, length: int, batch: int, own: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the recipe of one cell."""
    return {
        "model": {"model_name_or_path": model, "dtype": "bfloat16", **own.get("model", {})},
        "data": {"source": "builtin/word-problems", "max_length": length},
        "method": own["method"],
        "training": {
            "max_steps": 1,
            "per_device_train_batch_size": batch,
            "gradient_checkpointing": True,
            "loss_chunk_tokens": 256,
            **own.get("training", {}),
        },
    }


def plan_of(tree: dict[str, Any]) -> Plan | str:
    """Return the plan, or why there is none."""
    try:
        config, _ = parse_run_config(document_from(tree))
        return planning.make_plan(config, num_labels=None, total_steps=1)
    except SubspaceError as error:
        return str(error)


def share_measurements() -> None:
    """Let plans whose graphs are the same be measured once: the optimizer, its state and frozen codes are in none."""
    measure: Callable[..., Any] = planning._micro_batch_cost
    known: dict[str, Any] = {}

    @functools.wraps(measure)
    def once(config: Any, model: Any, batch: Any) -> Any:
        kind = "lora" if config.method.name == "lora" else "full"
        section = config.model
        key = repr((kind, section.model_name_or_path, section.trained_weights, config.data.max_length, batch))
        if key not in known:
            known[key] = measure(config, model, batch)
        return known[key]

    planning._micro_batch_cost = once  # type: ignore[assignment]


def cells() -> Iterator[dict[str, Any]]:
    for (size, model), length, batch in product(MODELS.items(), LENGTHS, BATCHES):
        for name, own in SETTINGS.items():
            plan = plan_of(tree_of(model, length, batch, own))
            cell: dict[str, Any] = {"size": size, "model": model, "length": length, "batch": batch, "setting": name}
            if isinstance(plan, str):
                yield cell | {"missing": plan}
            else:
                yield cell | {figure: getattr(plan, figure) for figure in FIGURES}


def smallest_card(peak_bytes: int) -> int | None:
    return next((card for card in CARDS if peak_bytes + RESERVE_BYTES <= card * 2**30), None)


def page(found: list[dict[str, Any]]) -> str:
    """Return the tables as Markdown."""
    names = [name for name in SETTINGS if any("peak_bytes" in cell for cell in found if cell["setting"] == name)]
    missing = {cell["setting"]: cell["missing"] for cell in found if "missing" in cell}
    lines = [
        "# What fits where",
        "",
        *INTRODUCTION.format(reserve=RESERVE_BYTES // 2**20).splitlines(),
        "",
        f"| model | length | batch | {' | '.join(names)} |",
        f"| --- | ---: | ---: |{' ---: |' * len(names)}",
    ]
    for (size, model), length, batch in product(MODELS.items(), LENGTHS, BATCHES):
        row = [cell for cell in found if (cell["size"], cell["length"], cell["batch"]) == (size, length, batch)]
        shown = [told(cell) for name in names for cell in row if cell["setting"] == name]
        lines.append(f"| {size} ({model.split('/')[1]}) | {length} | {batch} | {' | '.join(shown)} |")
    lines += ["", *best_lines(found, names)]
    lines += [f"\n{name} is missing: {why}" for name, why in missing.items()]
    lines += ["", "Made by `python benchmarks/frontier.py`; every figure stands in [frontier.json](frontier.json).", ""]
    return "\n".join(lines)


def told(cell: dict[str, Any]) -> str:
    if "peak_bytes" not in cell:
        return "-"
    card = smallest_card(cell["peak_bytes"])
    return f"{cell['peak_bytes'] / 2**30:.1f} → {card if card else '> 24'}"


def best_lines(found: list[dict[str, Any]], names: list[str]) -> list[str]:
    """Return the largest model that fits each card, at length 512 and batch 1."""
    lines = ["The largest model on each card, length 512 and batch 1:", ""]
    lines += [f"| card | {' | '.join(names)} |", f"| --- |{' --- |' * len(names)}"]
    small = [cell for cell in found if (cell["length"], cell["batch"]) == (512, 1) and "peak_bytes" in cell]
    for card in CARDS:
        best = [
            next(
                (
                    cell["size"]
                    for cell in reversed(small)
                    if cell["setting"] == name and cell["peak_bytes"] + RESERVE_BYTES <= card * 2**30
                ),
                "none",
            )
            for name in names
        ]
        lines.append(f"| {card} GB | {' | '.join(best)} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="path without an ending")
    arguments = parser.parse_args()
    share_measurements()
    found = []
    for cell in cells():
        found.append(cell)
        print(cell["size"], cell["length"], cell["batch"], cell["setting"], told(cell), file=sys.stderr, flush=True)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    facts = {"date": date.today().isoformat(), "reserve_bytes": RESERVE_BYTES, "settings": SETTINGS, "cells": found}
    arguments.out.with_suffix(".json").write_text(json.dumps(facts, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(page(found), encoding="utf-8")


if __name__ == "__main__":
    main()
