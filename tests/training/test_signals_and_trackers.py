"""Signals set a flag, trackers never stall a run, monitors count."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from subspace.core.errors import ConfigError
from subspace.training import trackers
from subspace.training.monitors import MachineMonitor, StepClock
from subspace.training.signals import StopFlag
from subspace.training.trackers import TrackerFeed


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_first_signal_is_remembered_and_handlers_come_back(number: signal.Signals, status: int) -> None:
    earlier = signal.getsignal(number)
    with StopFlag() as stop:
        assert stop.exit_status == 0
        os.kill(os.getpid(), number)
        assert stop.received == number
        assert stop.exit_status == status
    assert signal.getsignal(number) is earlier


def test_second_signal_ends_at_once() -> None:
    code = """
import os, signal, sys, time
from subspace.training.signals import StopFlag
with StopFlag():
    os.kill(os.getpid(), signal.SIGTERM)
    print("after one", flush=True)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(5)
    print("after two", flush=True)
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout) == (75, "after one\n")


def test_outside_the_main_thread_nothing_is_touched() -> None:
    found: list[bool] = []

    def work() -> None:
        with StopFlag() as stop:
            found.append(stop.received is None)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [True]


class Hanging:
    """A tracker whose server never answers."""

    def log(self, values: dict[str, float], step: int) -> None:
        time.sleep(60)

    def finish(self) -> None: ...


class Failing(Hanging):
    def log(self, values: dict[str, float], step: int) -> None:
        raise OSError("no route")


def feed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, tracker: Any) -> TrackerFeed:
    monkeypatch.setattr(trackers, "_starter", lambda *args: lambda: [tracker])
    monkeypatch.setattr(trackers, "require_packages", lambda names: None)
    return TrackerFeed(("wandb",), "run", tmp_path, {})


def record(step: int) -> dict[str, Any]:
    return {"event": "step", "step": step, "loss": 1.0, "machine": {"time": "now", "rss_bytes": 5}}


def test_a_hanging_tracker_costs_nothing_and_is_counted(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.2)
    target = feed(monkeypatch, tmp_path, Hanging())
    start = time.monotonic()
    for step in range(5000):
        target.on_record(record(step))
    target.close()
    assert time.monotonic() - start < 5
    assert target.num_dropped >= 5000 - trackers._QUEUE_SIZE - 1


def test_the_end_of_a_run_does_not_wait_for_a_hanging_tracker(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where the queue has room for the last word."""
    monkeypatch.setattr(trackers, "_CLOSE_SECONDS", 0.2)
    target = feed(monkeypatch, tmp_path, Hanging())
    for step in range(3):
        target.on_record(record(step))
    start = time.monotonic()
    target.close()
    assert time.monotonic() - start < 5
    assert target.num_dropped >= 2


def test_a_failing_tracker_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    target = feed(monkeypatch, tmp_path, Failing())
    for step in range(3):
        target.on_record(record(step))
    target.close()
    assert target.num_dropped == 3
    assert target.failure == "OSError: no route"


def test_numbers_arrive_flat(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Keeping(Hanging):
        def __init__(self) -> None:
            self.seen: list[tuple[dict[str, float], int]] = []
            self.finished = False

        def log(self, values: dict[str, float], step: int) -> None:
            self.seen.append((values, step))

        def finish(self) -> None:
            self.finished = True

    keeping = Keeping()
    target = feed(monkeypatch, tmp_path, keeping)
    target.on_record(record(7))
    target.on_record({"event": "checkpoint", "step": 7})
    target.on_record({"event": "eval", "step": 8, "split": "validation", "loss": 2.0})
    target.close()
    assert keeping.seen == [
        ({"train/step": 7, "train/loss": 1.0, "train/rss_bytes": 5}, 7),
        ({"eval/step": 8, "eval/loss": 2.0}, 8),
    ]
    assert keeping.finished


def test_a_tracker_that_cannot_start_is_told_and_stops_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse() -> list[Any]:
        raise ConnectionError("no server")

    monkeypatch.setattr(trackers, "_starter", lambda *args: refuse)
    monkeypatch.setattr(trackers, "require_packages", lambda names: None)
    target = TrackerFeed(("wandb",), "run", tmp_path, {})
    target.on_record(record(1))
    target.close()
    assert target.failure == "ConnectionError: no server"


def test_a_tracker_that_is_not_installed_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"E-CFG-020 training.report_to: wandb is not installed"):
        TrackerFeed(("wandb",), "run", tmp_path, {})


def test_tensorboard_really_receives(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    target = TrackerFeed(("tensorboard",), "run", tmp_path, {"rank": 4})
    for step in range(3):
        target.on_record(record(step))
    target.close()
    assert target.failure is None
    assert target.num_dropped == 0
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars: dict[str, list[tuple[int, float]]] = {}
    for path in tmp_path.rglob("events.out.tfevents.*"):
        events = EventAccumulator(str(path)).Reload()
        scalars |= {tag: [(item.step, item.value) for item in events.Scalars(tag)] for tag in events.Tags()["scalars"]}
    assert scalars["train/loss"] == [(0, 1.0), (1, 1.0), (2, 1.0)]
    (settings,) = tmp_path.rglob("hparams.yml")
    assert "rank: 4" in settings.read_text()


def test_the_clock_leaves_out_the_first_steps_and_forecasts_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    # spans: two of warm-up, five of a second, six of ten seconds that come after the forecast
    spans = [50.0, 20.0, *[1.0] * 5, *[10.0] * 6]
    moments = iter([sum(spans[:number]) for number in range(len(spans) + 1)])
    monkeypatch.setattr("time.perf_counter", lambda: next(moments))
    clock = StepClock()
    assert clock.forecast_seconds() is None
    clock.on_start(total_steps=110, step=10)
    for step in range(len(spans)):
        clock.on_step(10 + step, 1.0)
    assert clock.seconds_per_step() == 10.0
    assert clock.seconds_per_step(last=4) == 1.0
    assert clock.forecast_seconds() == 100.0


def test_memory_of_an_earlier_run_is_not_taken_for_granted() -> None:
    """Small blocks stay in the process when freed; a new monitor must not start above them."""
    block = [bytes([number % 256]) * 100_000 for number in range(800)]
    before = MachineMonitor("cpu").baseline_bytes
    keep = block[-1]
    del block
    assert before - MachineMonitor("cpu").baseline_bytes >= 60_000_000
    del keep


def test_monitor_sees_a_peak_that_has_gone() -> None:
    monitor = MachineMonitor("cpu")
    block = bytearray(64 * 1024 * 1024)
    block[::4096] = b"x" * len(block[::4096])
    del block
    assert monitor.peak_bytes() - monitor.baseline_bytes >= 48 * 1024 * 1024
    again = MachineMonitor("cpu")
    assert again.peak_bytes() - again.baseline_bytes < 16 * 1024 * 1024


def test_a_monitor_counts_on_from_earlier_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 100.0, 104.0, 106.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monitor = MachineMonitor("cpu")
    monitor.continue_from(30.0)
    monitor.restart_clock()
    monitor.add_tokens(8)
    record = monitor.snapshot()
    assert (record["elapsed_seconds"], record["tokens_per_second"]) == (34.0, 2.0)
    assert monitor.elapsed_seconds == 36.0


def test_rates_are_of_the_time_since_the_last_record(monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter([0.0, 100.0, 104.0, 106.0])
    monkeypatch.setattr("time.monotonic", lambda: next(moments))
    monitor = MachineMonitor("cpu")
    monitor.add_tokens(999)  # before the clock: loading, attaching
    monitor.restart_clock()
    monitor.add_tokens(8)
    first = monitor.snapshot()
    monitor.add_tokens(10)
    second = monitor.snapshot()
    assert [record["tokens_per_second"] for record in (first, second)] == [2.0, 5.0]
    assert [record["elapsed_seconds"] for record in (first, second)] == [4.0, 6.0]
