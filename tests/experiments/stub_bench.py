"""A small matrix as a file, and benches with stub workers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from subspace.config.load import dump_yaml
from subspace.experiments.bench import Bench, BenchResult, Observer
from subspace.experiments.cells import read_matrix

STUB = str(Path(__file__).with_name("stub_worker.py"))
MATRIX: dict[str, Any] = {
    "name": "sums",
    "recipe": {
        "model": {"model_name_or_path": "builtin/tiny-llama"},
        "data": {"source": "builtin/word-problems", "validation": "test", "max_length": 64},
        "training": {"per_device_train_batch_size": 2, "save_steps": 2},
        "evaluation": {"metrics": ["loss"]},
    },
    "tasks": {"words": {"metric": "loss"}},
    "arms": {"full": {"method": "full"}, "lora": {"method": {"name": "lora", "rank": 2}}},
    "seeds": [1, 2],
    "reference": "full",
    "budget": {"steps": 6},
    "search": {"learning_rates": [1e-3, 3e-3, 1e-2, 3e-2], "seed": 7},
}

WriteMatrix = Callable[..., Path]


@pytest.fixture
def write_matrix(tmp_path: Path) -> WriteMatrix:
    """Write the matrix with changes of its top keys; a None removes one."""

    def write(changes: Mapping[str, Any] | None = None) -> Path:
        tree = {key: value for key, value in {**MATRIX, **(changes or {})}.items() if value is not None}
        path = tmp_path / "matrix.yaml"
        path.write_text(dump_yaml(tree))
        return path

    return write


def run_stub(matrix: Path, folder: Path, workers: int = 1, observer: Observer | None = None) -> BenchResult:
    """Run a bench whose jobs are done by the stub."""
    bench = Bench(read_matrix(matrix), folder, workers, observer=observer or Observer(), program=(STUB,))
    return bench.run()


def executed(folder: Path) -> list[tuple[str, str, int]]:
    """Return what the stub workers noted: job, event, step."""
    path = folder / "executed"
    lines = path.read_text().splitlines() if path.exists() else []
    return [(job, event, step) for job, event, step in map(json.loads, lines)]


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]


def sealed_runs(folder: Path) -> dict[str, str]:
    """Return the run id of every finished run."""
    found = {}
    for path in folder.rglob("manifest.json"):
        manifest = json.loads(path.read_bytes())
        if manifest["outcome"] == "finished":
            found[path.parent.relative_to(folder).as_posix()] = manifest["run_id"]
    return found
