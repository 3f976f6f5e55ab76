"""What a person sees of a bench, on a terminal and elsewhere; and which GPU a worker sees."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from rich.console import Console
from stub_bench import WriteMatrix, run_stub

from subspace.cli import bench_view
from subspace.experiments.devices import default_workers, num_cores, visible_gpus


@pytest.mark.parametrize("terminal", [True, False], ids=["terminal", "file"])
def test_a_bench_is_watched(
    write_matrix: WriteMatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, terminal: bool
) -> None:
    seen = io.StringIO()
    console = Console(file=seen, force_terminal=terminal, width=110, color_system=None)
    monkeypatch.setattr(bench_view, "error_console", lambda: console)
    monkeypatch.setattr(bench_view, "_LINE_EVERY_SECONDS", 0.05)
    monkeypatch.setenv("STUB_STEP_SECONDS", "0.05")
    with bench_view.BenchView() as view:
        run_stub(write_matrix({"budget": {"steps": 12}, "search": None}), tmp_path / "out", observer=view)
    text = seen.getvalue()
    assert "bench sums: 4 jobs, in " in text
    assert "[4/4] words/tiny-llama/lora seed 2: finished (loss " in text
    assert "of 4 jobs done, " in text
    assert "to go" in text
    assert "/12" in text
    assert ("\x1b[" in text) is terminal


def test_each_worker_sees_one_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert visible_gpus() == ("2", "3")
    assert [default_workers(device) for device in ("auto", "cuda", "cuda:1", "cpu")] == [2, 2, 1, num_cores()]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == ()
    assert default_workers("auto") == num_cores()
