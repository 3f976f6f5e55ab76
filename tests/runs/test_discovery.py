"""Runs are found in folders and benches; of a bench those that it compares."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from subspace.runs.discovery import is_lost, runs_in


def run_at(path: Path) -> Path:
    path.mkdir(parents=True)
    (path / "manifest.json").write_text("{}")
    return path


def test_a_bench_gives_the_runs_that_it_compares(tmp_path: Path) -> None:
    outputs = tmp_path / "outputs"
    alone = run_at(outputs / "alone")
    arm = outputs / "demo/runs/words/tiny/lora"
    final, missing = run_at(arm / "seed-1"), arm / "seed-2"
    run_at(arm / "search/rung-0/rate-0.1")
    jobs = [{"run": str(run.relative_to(outputs / "demo"))} for run in (final, missing)]
    (outputs / "demo/bench.json").write_text(json.dumps({"jobs": jobs}))
    assert runs_in(outputs) == [alone, final]
    assert runs_in(outputs / "demo") == [final]
    assert runs_in(final) == [final]


def test_a_bench_that_cannot_be_read_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "bench.json").write_text("{")
    inside = run_at(tmp_path / "run")
    assert runs_in(tmp_path) == [inside]


def test_what_can_only_be_a_path_and_leads_nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    run_at(tmp_path / "Qwen/mine")
    assert all(map(is_lost, ("./lost", "~/lost", "/lost", "a/b/c", "Qwen/mine/lost")))
    # the second may well be on a hub, whatever lies here
    assert not any(map(is_lost, ("lost", "Qwen/Qwen2-0.5B", "Qwen/mine", "builtin/lost", str(tmp_path))))
