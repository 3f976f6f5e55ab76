"""Whether cheaper refreshes and narrower state cost quality: GaLore over five seeds, paired with the svd's run.

Two tasks: the real model stories260K on tiny Shakespeare (the data lie beside the repository), and the built-in model
on its word problems. Each arm differs from the first, `svd` with 32-bit moments refreshed all at once, in one option.
The held-out losses of five seeds are compared with the first arm's of the same seeds: mean difference and its 95 %
t-interval. Results are appended to a file, so that a study that was stopped goes on.

    OMP_NUM_THREADS=1 python benchmarks/refresh_quality.py --task builtin --out benchmarks/results/refresh_quality.jsonl
    python benchmarks/refresh_quality.py --table benchmarks/results/refresh_quality.jsonl
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
ARMS: dict[str, dict[str, Any]] = {
    "svd": {},
    "gram": {"basis": "gram"},
    "randomized": {"basis": "randomized"},
    "warm": {"basis": "warm"},
    "staggered": {"refresh": "staggered"},
    "fast": {"preset": "fast"},
    "8 bits": {"state_bits": 8},
    "4 bits": {"state_bits": 4},
    "transport": {"moments": "transport"},
    "micro-batch": {"update": "in_backward", "refresh_from": "micro_batch"},
}
MICRO_BATCHES = 8
"""Of a step of the arm `micro-batch`, whose bases come from the first of them."""
SEEDS = (1, 2, 3, 4, 5)
_T95 = {2: 4.303, 3: 3.182, 4: 2.776}
"""Two-sided 95 % quantiles of Student's t, by degrees of freedom."""


def recipe(task: str, arm: str, seed: int, folder: Path) -> dict[str, Any]:
    """Return the recipe of one run."""
    method = {"name": "galore", "rank": 16, "refresh_interval": 20, "microscope": False, **ARMS[arm]}
    training = {"seed": seed, "output_dir": str(folder / "run"), "warmup_ratio": 0.05}
    parts = MICRO_BATCHES if arm == "micro-batch" else 1
    training["gradient_accumulation_steps"] = parts
    if task == "builtin":
        return {
            "model": {"model_name_or_path": "builtin/tiny-llama"},
            "data": {"source": "builtin/word-problems", "validation": "test", "max_length": 64},
            "method": method,
            "training": training
            | {"max_steps": 100, "per_device_train_batch_size": 16 // parts, "learning_rate": 5e-3},
            "evaluation": {"metrics": ["loss"]},
        }
    sys.path.insert(0, str(ROOT / "tests"))
    from fixtures.stories260k import DATA, write_stories_folder

    return {
        "model": {"model_name_or_path": "karpathy/tinyllamas", "local_path": str(write_stories_folder(folder / "m"))},
        "data": {
            "source": str(DATA / "corpus" / "tinyshakespeare.txt.gz"),
            "format": "text",
            "loss_on": "all",
            "validation_fraction": 0.05,
            "max_length": 256,
        },
        "method": method,
        "training": training | {"max_steps": 120, "per_device_train_batch_size": 8 // parts, "learning_rate": 1e-2},
        "evaluation": {"metrics": ["loss"]},
    }


def run(task: str, arm: str, seed: int) -> dict[str, Any]:
    from subspace.config.load import document_from
    from subspace.pipeline.execute import train
    from subspace.pipeline.run_config import parse_run_config

    with tempfile.TemporaryDirectory() as folder:
        config, _ = parse_run_config(document_from(recipe(task, arm, seed, Path(folder))))
        begun = time.perf_counter()
        result = train(config)
    loss = result.metrics["loss"]
    return {"task": task, "arm": arm, "seed": seed, "loss": loss, "seconds": round(time.perf_counter() - begun, 1)}


def table(records: list[dict[str, Any]]) -> str:
    """Return the differences from the first arm as a Markdown table."""
    lines = ["| task | arm | seeds | mean loss | minus svd's, 95 % interval |", "| --- | --- | --- | --- | --- |"]
    for task in dict.fromkeys(record["task"] for record in records):
        base = {r["seed"]: r["loss"] for r in records if (r["task"], r["arm"]) == (task, "svd")}
        spread = statistics.stdev(base.values()) if len(base) > 1 else float("nan")
        for arm in ARMS:
            own = {r["seed"]: r["loss"] for r in records if (r["task"], r["arm"]) == (task, arm)}
            if not own:
                continue
            pairs = [own[seed] - base[seed] for seed in own if seed in base]
            text = f"seeds differ by {spread:.4f} (standard deviation)" if arm == "svd" else interval(pairs)
            lines.append(f"| {task} | {arm} | {len(own)} | {statistics.mean(own.values()):.4f} | {text} |")
    return "\n".join(lines)


def interval(pairs: list[float]) -> str:
    mean = statistics.mean(pairs)
    if len(pairs) - 1 not in _T95:
        return f"{mean:+.4f}"
    half = _T95[len(pairs) - 1] * statistics.stdev(pairs) / len(pairs) ** 0.5
    return f"{mean:+.4f} ({mean - half:+.4f} to {mean + half:+.4f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--task", choices=["builtin", "shakespeare"])
    parser.add_argument("--arms", nargs="*", default=list(ARMS))
    parser.add_argument("--out", type=Path)
    parser.add_argument("--table", type=Path)
    args = parser.parse_args()
    if args.table:
        print(table([json.loads(line) for line in args.table.read_text().splitlines()]))
        return
    done = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    have = {(record["task"], record["arm"], record["seed"]) for record in done}
    for seed in SEEDS:
        for arm in args.arms:
            if (args.task, arm, seed) not in have:
                with args.out.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(run(args.task, arm, seed)) + "\n")


if __name__ == "__main__":
    main()
