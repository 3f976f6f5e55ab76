"""A bench that is killed loses no finished job and repeats none; two on one folder: one is refused."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from stub_bench import MATRIX, WriteMatrix, executed, journal, run_stub, sealed_runs
from stub_worker import ENDS_ANYWAY

DRIVE = str(Path(__file__).with_name("drive.py"))
NUM_JOBS = 2 * (4 + 2) + 4


def start(matrix: Path, out: Path, step_seconds: float = 0.02) -> subprocess.Popen[str]:
    """Start a bench in a process of its own."""
    environment = {**os.environ, "STUB_STEP_SECONDS": str(step_seconds)}
    command = [sys.executable, DRIVE, str(matrix), str(out), "2"]
    with (matrix.parent / "said").open("a") as said:
        return subprocess.Popen(command, env=environment, stderr=said, text=True)


def said_by(process: subprocess.Popen[str], matrix: Path) -> str:
    """Wait for the end of a bench; return its last line."""
    process.wait(timeout=60)
    return (matrix.parent / "said").read_text().splitlines()[-1]


def wait_for(happened: object, process: subprocess.Popen[str], seconds: float = 60) -> None:
    begun = time.monotonic()
    while not happened() and process.poll() is None:  # type: ignore[operator]
        assert time.monotonic() - begun < seconds
        time.sleep(0.005)


def worker_pids(bench: int) -> list[int]:
    """Return the processes whose parent is a bench."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == bench:
            found.append(int(path.parent.name))
    return found


def wait_until_gone(pids: list[int]) -> None:
    """Return when no process is alive any more; one that nobody has reaped is not."""

    def alive(pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
        except OSError:
            return False

    begun = time.monotonic()
    while any(map(alive, pids)):
        assert time.monotonic() - begun < 10
        time.sleep(0.01)


@pytest.fixture
def running(write_matrix: WriteMatrix, tmp_path: Path) -> Iterator[tuple[subprocess.Popen[str], Path]]:
    """A bench that is doing steps."""
    out = tmp_path / "out"
    process = start(write_matrix(), out, step_seconds=0.1)
    wait_for(lambda: executed(out), process)
    yield process, out
    process.kill()
    process.wait()


def check_none_twice(out: Path, kills: int) -> None:
    """Hold that each job was brought to its end once, and that no step that was saved was done again."""
    ends = Counter(job for job, event, _ in executed(out) if event == "end")
    assert all(count == 1 for count in ends.values()), ends
    ended: set[str] = set()
    for entry in journal(out):
        assert not (entry["event"] == "begin" and entry["job"] in ended), entry
        ended |= {entry["job"]} if entry["event"] == "end" else set()
    begins = [step for _, event, step in executed(out) if event == "begin"]
    assert len(begins) <= NUM_JOBS + 2 * kills  # two workers


def test_ten_kills_lose_and_repeat_nothing(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out, matrix, draw = tmp_path / "out", write_matrix(), random.Random(3)
    known: dict[str, str] = {}
    kills = 0
    while kills < 10:
        process = start(matrix, out)
        before = len(executed(out))
        if kills % 4:  # the others may fall anywhere, even before the first job
            wait_for(lambda before=before: len(executed(out)) > before + draw.randrange(3), process)
        time.sleep(draw.uniform(0, 0.3))
        process.kill()
        if process.wait() != -signal.SIGKILL:
            break  # it had ended
        kills += 1
        found = sealed_runs(out)
        assert known.items() <= found.items(), "a finished run was lost or made again"
        known = found
    assert kills >= 8
    assert run_stub(matrix, out).failures == ()
    assert known.items() <= sealed_runs(out).items()
    assert len(sealed_runs(out)) == NUM_JOBS
    check_none_twice(out, kills)
    search = json.loads((out / "runs/words/tiny-llama/lora/search.json").read_bytes())
    assert (len(search["trials"]), search["chosen"]) == (6, 1e-2)


def test_workers_end_with_the_bench(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, _ = running
    pids = worker_pids(process.pid)
    assert len(pids) == 2
    process.kill()
    process.wait()
    wait_until_gone(pids)


def test_a_second_bench_on_a_folder_is_refused(
    running: tuple[subprocess.Popen[str], Path], write_matrix: WriteMatrix
) -> None:
    process, out = running
    second = start(write_matrix(), out)
    said = said_by(second, write_matrix())
    assert second.returncode == 7
    assert said.startswith("E-LCK-001")
    assert f"process {process.pid} " in said
    assert "--out" in said
    assert process.poll() is None


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 75), (signal.SIGINT, 130)])
def test_a_signal_saves_and_stops(
    running: tuple[subprocess.Popen[str], Path], write_matrix: WriteMatrix, number: signal.Signals, status: int
) -> None:
    process, out = running
    process.send_signal(number)
    said = said_by(process, write_matrix())
    assert process.returncode == status
    assert said.startswith("E-RUN-075")
    stopped = {entry["job"] for entry in journal(out) if entry["event"] == "stop"}
    assert stopped
    assert run_stub(write_matrix(), out).failures == ()
    resumed = {job for job, event, step in executed(out) if event == "begin" and step > 0}
    assert resumed == stopped
    check_none_twice(out, 1)


def test_a_bench_stops_although_its_runs_end_after_the_signal(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    recipe = {**MATRIX["recipe"], "training": {**MATRIX["recipe"]["training"], "weight_decay": ENDS_ANYWAY}}
    out, matrix = tmp_path / "out", write_matrix({"recipe": recipe})
    process = start(matrix, out, step_seconds=0.3)
    wait_for(lambda: len(executed(out)) == 2, process)  # both workers do steps
    process.send_signal(signal.SIGTERM)
    assert said_by(process, matrix).startswith("E-RUN-075")
    assert process.returncode == 75
    events = Counter(entry["event"] for entry in journal(out))
    assert events["end"] == events["begin"]  # nothing was given out after the signal
    assert not events["stop"]


def test_a_second_interrupt_ends_at_once(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(write_matrix(), out, step_seconds=30)
    wait_for(lambda: executed(out), process)
    pids = worker_pids(process.pid)
    process.send_signal(signal.SIGINT)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=10) == 130
    wait_until_gone(pids)


def test_a_killed_worker_is_replaced(running: tuple[subprocess.Popen[str], Path]) -> None:
    process, out = running
    os.kill(worker_pids(process.pid)[0], signal.SIGKILL)
    assert process.wait(timeout=60) == 0
    assert len(sealed_runs(out)) == NUM_JOBS
    assert [entry["reason"] for entry in journal(out) if entry["event"] == "death"] == ["signal 9"]
    check_none_twice(out, 1)
