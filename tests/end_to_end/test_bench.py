"""`subspace bench` with real workers: dry run, runs, page, a second call, failures; killed, it ends the same."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from command_line import CommandLine

from subspace.config.load import dump_yaml
from subspace.experiments.cells import read_matrix
from subspace.experiments.token_budget import in_steps

MATRIX: dict[str, Any] = {
    "name": "sums",
    "recipe": {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "sums.jsonl", "validation": "more-sums.jsonl", "max_length": 64},
        "training": {"per_device_train_batch_size": 4, "save_steps": 2},
        "evaluation": {"metrics": ["loss"]},
    },
    "tasks": {"sums": {"metric": "loss"}},
    "arms": {
        "lora": {"method": {"name": "lora", "rank": 4, "dropout": 0.1}},
        "sgd": {
            "method": {"name": "custom_optimizer", "optimizer": "torch.optim.SGD", "arguments": {"momentum": 0.9}},
            "label": "SGD",
        },
    },
    "seeds": [1],
    "reference": "sgd",
    "budget": {"steps": 4},
    "search": {"learning_rates": [1e-3, 1e-2], "seed": 7, "validation_fraction": 0.3},
    "score_base": True,
}


def write(subspace: CommandLine, **changes: Any) -> Path:
    subspace.recipe()  # and the rows
    return subspace.write("matrix.yaml", dump_yaml({**MATRIX, **changes}))


def test_a_bench_from_plan_to_page(subspace: CommandLine) -> None:
    matrix, out = write(subspace), subspace.folder / "out"
    planned = subspace("bench", matrix, "--out", "out", "--dry-run", "--jobs", "2").out
    assert "jobs: 6, 6 of them open" in planned
    assert "of one core" in planned
    assert "disk: " in planned
    assert not out.exists()

    ended = subspace("bench", matrix, "--out", "out", "--jobs", "1")
    assert "bench: 7 of 7 jobs done" in ended.out
    assert "page: " in ended.out
    assert "1 seed" in ended.out, "the verdict is printed, with what it cannot tell"
    assert (out / "comparison" / "index.html").is_file()
    bench = json.loads((out / "bench.json").read_bytes())
    assert bench["arms"]["sgd"] == {"method": "custom_optimizer", "label": "SGD"}
    for job in bench["jobs"]:
        run = out / job["run"]
        assert "before" in json.loads((run / "metrics.json").read_bytes())
        assert not (run / "checkpoints").exists()
    trials = json.loads((out / "runs/sums/tiny-llama/lora/search.json").read_bytes())["trials"]
    assert all(trial["score"] > 0 and not (out / trial["run"] / "adapter").exists() for trial in trials)

    again = subspace("bench", matrix, "--out", "out", "--jobs", "1")
    assert "7 of 7 jobs done, 7 of them before" in again.out
    planned = subspace("bench", matrix, "--out", "out", "--dry-run", "--jobs", "2").out
    assert "jobs: 6, 0 of them open" in planned

    ids = {path: path.read_bytes() for path in out.rglob("manifest.json")}
    refused = subspace.end("bench", matrix, "--out", "out", "arms.lora.method.rank=2")
    assert refused.status == 2
    assert refused.err.startswith("E-CLI-004")
    assert "rank is 2, not 4" in refused.err
    assert {path: path.read_bytes() for path in out.rglob("manifest.json")} == ids

    rows = subspace.folder / "more-sums.jsonl"
    rows.write_text(rows.read_text().replace("1", "2"))
    refused = subspace.end("bench", matrix, "--out", "out", "--jobs", "1")
    assert refused.status == 3
    assert refused.err.startswith("E-DAT-015")
    assert "more-sums.jsonl" in refused.err


def test_jobs_that_fail_are_named_and_the_status_is_one(subspace: CommandLine) -> None:
    arms = {
        "lora": MATRIX["arms"]["lora"],
        "lbfgs": {"method": {"name": "custom_optimizer", "optimizer": "torch.optim.LBFGS"}},
    }
    matrix = write(subspace, arms=arms, reference=None, search=None, score_base=False)
    ended = subspace.end("bench", matrix, "--out", "out", "--jobs", "1")
    assert ended.status == 1
    assert "failed: sums/tiny-llama/lbfgs seed 1: E-MTH-001" in ended.out
    assert "1 jobs failed: sums/tiny-llama/lbfgs seed 1" in ended.err
    assert (subspace.folder / "out/runs/sums/tiny-llama/lora/seed-1/metrics.json").is_file()


def test_a_budget_in_tokens_is_whole_steps(subspace: CommandLine) -> None:
    with contextlib.chdir(subspace.folder):
        matrix = read_matrix(write(subspace, budget={"tokens": 600}, search=None))
        found = in_steps(matrix)
    (steps,) = {cell.steps for cell in found.cells}
    per_step = tokens_per_step_by_hand(subspace)
    assert steps == round(600 / per_step)
    assert steps > 2
    assert (found.budget.kind, found.budget.value) == ("tokens", 600)


def tokens_per_step_by_hand(subspace: CommandLine) -> float:
    """Return the mean tokens of four rows: prompt, answer and what the tokenizer puts around them."""
    from subspace.data.config import DataConfig
    from subspace.data.prepare import prepare
    from subspace.models.config import ModelConfig
    from subspace.models.load import load_tokenizer

    tokenizer = load_tokenizer(ModelConfig(model_name_or_path="builtin/tiny-llama"))
    data = DataConfig(source=str(subspace.folder / "sums.jsonl"), max_length=64)
    rows = prepare(data, tokenizer, task="causal_lm", split="train").rows
    return 4 * sum(len(row.input_ids) for row in rows) / len(rows)


def outcome(out: Path) -> dict[str, str]:
    """Return the sha256 of every final run's weights and of its scores."""
    found = {}
    for run in sorted(out.glob("runs/*/*/*/seed-*")):
        parts = [*run.glob("adapter/*.safetensors"), *run.glob("model/*.safetensors"), run / "metrics.json"]
        found[run.name + run.parent.name] = hashlib.sha256(b"".join(path.read_bytes() for path in parts)).hexdigest()
    return found


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills_of_a_real_bench_change_nothing(subspace: CommandLine) -> None:
    """Bit by bit the same weights and scores as of a bench that nobody disturbed, and no job twice."""
    matrix = write(subspace, budget={"steps": 40}, seeds=[1, 2])
    whole, out = subspace.folder / "whole", subspace.folder / "killed"
    command = [sys.executable, "-m", "subspace", "bench", str(matrix), "--jobs", "2", "--out"]

    def start(folder: Path) -> subprocess.Popen[bytes]:
        quiet = subprocess.DEVNULL
        return subprocess.Popen([*command, str(folder)], cwd=subspace.folder, stdout=quiet, stderr=quiet)

    assert start(whole).wait() == 0
    draw, kills = random.Random(5), 0
    while kills < 10:
        process, journal = start(out), out / "journal.jsonl"
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.01)
        time.sleep(draw.uniform(0, 4))
        os.kill(process.pid, signal.SIGKILL)
        if process.wait() != -signal.SIGKILL:
            break
        kills += 1
    assert kills >= 6
    assert start(out).wait() == 0
    assert outcome(out) == outcome(whole)
    ended: set[str] = set()
    for entry in map(json.loads, (out / "journal.jsonl").read_text().splitlines()):
        assert not (entry["event"] == "begin" and entry["job"] in ended)
        ended |= {entry["job"]} if entry["event"] == "end" else set()
