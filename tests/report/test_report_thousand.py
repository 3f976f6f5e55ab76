"""A thousand runs are compared in less than 15 seconds of one core."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from report.forged_bench import forge_bench
from subspace.report.compare import compare

TASKS = ("word-problems", "shakespeare", "gsm", "mmlu", "arc")


@pytest.mark.slow
def test_a_thousand_runs_take_seconds(tmp_path: Path) -> None:
    arms = [f"lora, rank {rank}" for rank in range(1, 21)]
    folder = forge_bench(
        tmp_path / "bench", arms=arms, tasks=TASKS, seeds=range(10), items=200, steps=150, searches=False
    )
    start = time.process_time()
    found = compare([folder], tmp_path / "out")
    seconds = time.process_time() - start
    assert len(found.records) == 1000
    assert found.page.stat().st_size < 5_000_000
    assert seconds < 15, f"{seconds:.1f} s of processor time"
