"""A bench as `subspace bench` leaves it, with made-up but lifelike numbers, written fast: plain files."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

SKILL = {"full": 0.86, "stella": 0.87, "galore": 0.83, "lora": 0.84, "dora": 0.845, "apollo, rank 16": 0.76}
"""True share of right answers of each arm."""
COST = {"full": 9.0, "stella": 4.5, "galore": 6.0, "lora": 4.0, "dora": 4.6, "apollo, rank 16": 4.2}
TRAINED = {"full": 873_600, "galore": 873_600, "apollo, rank 16": 873_600}
VERSIONS = {"subspace": "0.1.0", "torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.21.2", "python": "3.11.7"}
RECIPE = """\
model: {{model_name_or_path: {model}}}
data: {{source: {task}}}
method: {{name: {method}, rank: 8{fidelity}}}
training: {{learning_rate: {rate}, seed: {seed}, max_steps: {steps}, output_dir: {folder}}}
"""


def forge_bench(
    out: Path,
    *,
    arms: Sequence[str] = tuple(SKILL),
    tasks: Sequence[str] = ("word-problems", "shakespeare"),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    items: int = 120,
    steps: int = 120,
    reference: str | None = None,
    searches: bool = True,
    fidelity: Mapping[str, str] | None = None,
) -> Path:
    """Write a bench; `shakespeare` is scored by loss, every other task by exact match; `fidelity` goes by arm."""
    jobs, found = [], []
    for task in tasks:
        for arm in arms:
            for seed in seeds:
                place = f"runs/{task}/tiny-llama/{arm.replace(', ', '-').replace(' ', '-')}/seed-{seed}"
                own = (fidelity or {}).get(arm)
                forge_run(out / place, arm=arm, task=task, seed=seed, items=items, steps=steps, fidelity=own)
                jobs.append(
                    {"arm": arm, "task": task, "model": "tiny-llama", "seed": seed, "run": place, "learning_rate": 5e-4}
                )
            if searches:
                name = f"runs/{task}/tiny-llama/{arm.replace(', ', '-').replace(' ', '-')}/search.json"
                write_json(out / name, search_of(arm, task))
                found.append(name)
    tree = {
        "schema": "subspace.bench/1",
        "name": "forged",
        "command": "subspace bench matrix.yaml --out outputs/forged",
        "created": "2026-11-27T00:00:00+00:00",
        "family": {"reference": reference, "metric": {task: metric_of(task) for task in tasks}},
        "budget": {"kind": "steps", "value": steps},
        "arms": {arm: {"method": arm.partition(",")[0], "label": arm} for arm in arms},
        "jobs": jobs,
        "searches": found,
    }
    write_json(out / "bench.json", tree)
    return out


def metric_of(task: str) -> str:
    return "loss" if task == "shakespeare" else "exact_match"


def forge_run(
    folder: Path,
    *,
    arm: str,
    task: str,
    seed: int,
    items: int = 120,
    steps: int = 120,
    refreshes: bool = True,
    fidelity: str | None = None,
) -> Path:
    """Write one finished run."""
    # A string is a seed that does not change from process to process, as a hash would.
    stream, shared = random.Random(f"{arm} {task} {seed}"), random.Random(task)
    skill = SKILL.get(arm, 0.8) + stream.gauss(0, 0.012)
    method = arm.partition(",")[0]
    rows = [_item(place, task, skill, stream, shared.random()) for place in range(items)]
    metrics = _metrics(rows, task)
    folder.mkdir(parents=True)
    recipe = RECIPE.format(
        model="tiny-llama", task=task, method=method, rate=5e-4, seed=seed, steps=steps, folder=folder.name,
        fidelity=f", fidelity: {fidelity}" if fidelity else "",
    )  # fmt: skip
    (folder / "config.yaml").write_text(recipe, encoding="utf-8")
    end = 2.2 - 1.9 * skill
    log = [
        _start(method, steps),
        *_log(end, steps, stream, COST.get(arm, 5.0), refreshes and method in ("galore", "apollo")),
    ]
    (folder / "unified_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log), encoding="utf-8")
    write_json(
        folder / "metrics.json", {"before": {metric_of(task): 0.2 if task != "shakespeare" else 2.4}, "test": metrics}
    )
    (folder / "predictions").mkdir()
    (folder / "predictions" / "test.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
    )
    trained, memory = TRAINED.get(arm, 81_920 + 997 * len(arm)), int(COST.get(arm, 5.0) * 40e6)
    plan = {
        "trained_parameters": trained,
        "peak_bytes": int(memory * 0.93),
        "run_flops": int(1.7e12 * COST.get(arm, 5) / 4),
    }
    write_json(folder / "plan.json", plan)
    summary = {
        "steps": steps, "planned_steps": steps, "trained_parameters": trained, "num_tokens": 1340 * steps,
        "planned_peak_bytes": plan["peak_bytes"], "measured_peak_bytes": int(memory * stream.uniform(0.97, 1.03)),
        "seconds": COST.get(arm, 5.0) * stream.uniform(3.6, 4.2), "metrics": metrics,
    }  # fmt: skip
    write_json(folder / "manifest.json", _manifest(folder, seed, summary))
    return folder


def _item(place: int, task: str, skill: float, stream: random.Random, hardness: float) -> dict[str, Any]:
    item = {"index": place, "id": f"{task}/{place}", "prompt": f"Question {place}: how many are left?\nAnswer:"}
    if task == "shakespeare":
        loss = max(0.05, 1.2 + hardness - skill + stream.gauss(0, 0.06))
        return {**item, "loss": loss, "num_tokens": 20 + place % 13}
    chance = 1 / (1 + math.exp(-6 * (skill - 0.35 - 0.62 * hardness)))
    right = stream.random() < (1.0 if hardness < 0.45 else chance)
    answer = place % 17
    output = f" {answer}" if right else f" {answer + stream.randint(1, 3)}"
    return {**item, "reference": f" {answer}", "output": output, "exact_match": float(right), "correct": right}


def _metrics(rows: Sequence[dict[str, Any]], task: str) -> dict[str, float]:
    if task == "shakespeare":
        tokens = sum(row["num_tokens"] for row in rows)
        return {"loss": sum(row["loss"] * row["num_tokens"] for row in rows) / tokens}
    return {"exact_match": sum(row["exact_match"] for row in rows) / len(rows)}


def _start(method: str, steps: int) -> dict[str, Any]:
    return {"schema": 1, "event": "run_start", "step": 0, "method": method, "model": "tiny-llama", "total_steps": steps}


def _log(end: float, steps: int, stream: random.Random, cost: float, refreshes: bool) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for step in range(1, steps + 1):
        loss = end + 2.0 * math.exp(-7 * step / steps)
        machine = {"elapsed_seconds": cost * step / steps, "tokens_per_second": 7000.0, "rss_bytes": 600_000_000}
        noisy = loss * (1 + 0.10 * stream.gauss(0, 1))
        found.append(
            {
                "schema": 1, "event": "step", "step": step, "epoch": step / 200, "loss": noisy, "learning_rate": 5e-4,
                "grad_norm": 0.4, "num_tokens": 1340 * step, "num_targets": 420 * step, "machine": machine,
            }
        )  # fmt: skip
        if step % max(steps // 8, 1) == 0:
            found.append({"schema": 1, "event": "eval", "step": step, "split": "validation", "loss": loss * 1.05})
        if refreshes and step % max(steps // 5, 1) == 1:
            weights = {
                f"model.layers.{layer}.{kind}.weight": {
                    "captured_energy": 0.55 + 0.08 * layer + stream.uniform(0, 0.05)
                }
                for layer in range(3)
                for kind in ("q_proj", "up_proj")
            }
            found.append(
                {
                    "schema": 1, "event": "method", "kind": "refresh", "step": step, "weights": weights,
                    "num_weights": len(weights), "machine": {"refresh_seconds": stream.uniform(0.02, 0.05)},
                }
            )  # fmt: skip
    return [*found, {"schema": 1, "event": "run_end", "step": steps, "outcome": "finished"}]


def _manifest(folder: Path, seed: int, summary: dict[str, Any]) -> dict[str, Any]:
    attempt = {
        "argv": ["/opt/bin/subspace", "train", f"{folder.name}.yaml"], "commit": "0123456789abcdef", "device": "cpu",
        "start": "2026-11-27T00:36:44+00:00", "outcome": "finished", "platform": "Linux", "versions": VERSIONS,
    }  # fmt: skip
    digests = {"recipe": "5b5379a66fb6fb74" * 4, "data": "1f9697a690225737" * 4, "base_model": "9ff015ad86d8c7a1" * 4}
    return {
        "kind": "run", "schema": 1, "outcome": "finished", "created": "2026-11-27T00:36:44+00:00",
        "attempts": [attempt], "digests": {}, "facts": {"seed": seed, "device": "cpu", "digests": digests},
        "summary": summary,
    }  # fmt: skip


def search_of(arm: str, task: str) -> dict[str, Any]:
    """Return a search of five learning rates in two rounds, of which the largest fails."""
    stream, best = random.Random(arm + task), -7.5 + len(arm) % 3
    trials: list[dict[str, Any]] = []
    for rung, values in enumerate(([1e-4, 3e-4, 1e-3, 3e-3, 1e-2], [3e-4, 1e-3])):
        for value in values:
            failed = value == 1e-2 and arm == "full"
            score = 0.6 + 0.1 * rung + 0.03 * (math.log(value) - best) ** 2 + stream.gauss(0, 0.005)
            trials.append(
                {
                    "value": value, "rung": rung, "steps": 30 * (rung + 1), "score": None if failed else score,
                    "seconds": 4.0, "run": f"search/{value}", "error": "loss is not finite" if failed else None,
                }
            )  # fmt: skip
    return {
        "schema": "subspace.search/1", "arm": arm, "task": task, "model": "tiny-llama", "key": "training.learning_rate",
        "metric": "loss", "higher_is_better": False, "trials": trials, "chosen": 1e-3, "seconds": 28.0,
    }  # fmt: skip


def write_json(path: Path, tree: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(tree), encoding="utf-8")
