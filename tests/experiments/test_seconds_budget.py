"""A budget in seconds is so many steps for each arm as it buys at the pace that was measured once."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from stub_bench import WriteMatrix, executed, run_stub, sealed_runs

from subspace.core.errors import CheckpointError
from subspace.experiments.bench import Bench, Observer
from subspace.experiments.cells import read_matrix
from subspace.experiments.step_time import time_of_trials
from subspace.runs.store import RunFolder

BASE = "runs/words/tiny-llama"
TIMED: dict[str, Any] = {
    "budget": {"seconds": 0.065},
    "search": {"learning_rates": [1e-3, 3e-3, 1e-2, 3e-2], "seed": 7, "steps": 4},
}
UNSEARCHED = {**TIMED, "search": None}


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def final_steps(out: Path) -> dict[str, set[int]]:
    """Return the steps that the final runs of each arm were brought to."""
    found: dict[str, set[int]] = {"full": set(), "lora": set()}
    for job, event, step in executed(out):
        if event == "end" and "/search/" not in job:
            found[job.split("/")[3]].add(step)
    return found


def test_the_trials_tell_the_pace(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    class Remaining(Observer):
        told: list[float | None] = []

        def on_job(self, bench: Bench, *rest: Any) -> None:
            self.told.append(bench.remaining_seconds())

    out, seen = tmp_path / "out", Remaining()
    assert run_stub(write_matrix(TIMED), out, observer=seen).failures == ()
    assert final_steps(out) == {"full": {6}, "lora": {3}}
    bench = read(out / "bench.json")
    assert bench["budget"] == {"kind": "seconds", "value": 0.065}
    assert {(job["arm"], job["steps"]) for job in bench["jobs"]} == {("full", 6), ("lora", 3)}
    told = {entry["arm"]: (entry["step_seconds"], entry["steps"], entry["source"]) for entry in bench["step_times"]}
    assert told == {"full": (pytest.approx(0.01), 6, "trials"), "lora": (pytest.approx(0.02), 3, "trials")}
    searches = [read(out / BASE / arm / "search.json")["trials"] for arm in ("full", "lora")]
    assert [[trial["steps"] for trial in trials] for trials in searches] == [[2, 2, 2, 2, 4, 4]] * 2
    kept = read(out / BASE / "lora" / "step_time.json")
    assert (kept["schema"], kept["num_runs"], kept["num_steps"]) == ("subspace.step-time/1", 2, 8)
    assert seen.told[0] is not None
    assert seen.told[0] >= 4 * 0.065, "runs whose steps are not known take what they are given"
    assert seen.told[-1] == 0.0


@pytest.mark.parametrize("changes", [TIMED, UNSEARCHED], ids=["trials", "probes"])
def test_the_pace_is_never_measured_again(
    write_matrix: WriteMatrix, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    out = tmp_path / "out"
    run_stub(write_matrix({**changes, "seeds": [1]}), out)
    kept = {path: path.read_bytes() for path in out.rglob("step_time.json")}
    ids = sealed_runs(out)
    assert len(kept) == 2
    monkeypatch.setenv("STUB_STEP_SECONDS", "0.002")  # a faster machine
    again = run_stub(write_matrix({**changes, "seeds": [1, 2]}), out)
    assert again.failures == ()
    assert final_steps(out) == {"full": {6}, "lora": {3}}
    assert {path: path.read_bytes() for path in out.rglob("step_time.json")} == kept
    assert ids.items() <= sealed_runs(out).items()
    assert again.num_kept == again.num_jobs - 2


def test_without_a_search_steps_are_timed_for_it(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_stub(write_matrix(UNSEARCHED), out)
    assert (len(result.runs), result.failures, result.num_jobs) == (4, (), 4 + 2)
    assert final_steps(out) == {"full": {6}, "lora": {3}}
    assert {entry["source"] for entry in read(out / "bench.json")["step_times"]} == {"probe"}


def test_a_damaged_figure_is_not_measured_anew(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_stub(write_matrix(TIMED), out)
    path = out / BASE / "lora" / "step_time.json"
    path.write_text(path.read_text()[:-20])
    with pytest.raises(CheckpointError, match="E-CKP-002") as refused:
        run_stub(write_matrix(TIMED), out)
    assert refused.value.where == str(path)


def test_a_task_keeps_its_own_steps(write_matrix: WriteMatrix) -> None:
    tasks = {"timed": {"metric": "loss"}, "fixed": {"metric": "loss", "steps": 5}}
    matrix = read_matrix(write_matrix({**TIMED, "tasks": tasks}))
    assert {(cell.task, cell.has_steps) for cell in matrix.cells} == {("timed", False), ("fixed", True)}
    assert {cell.steps for cell in matrix.cells if cell.has_steps} == {5}
    alone = read_matrix(write_matrix({**TIMED, "tasks": {"fixed": tasks["fixed"]}, "search": {**TIMED["search"]}}))
    assert all(cell.has_steps for cell in alone.cells)


def trial(folder: Path, spans: list[float], *, resumed_after: int | None = None, every: int = 1) -> Path:
    """Write a finished run whose steps took so long; a resumed one's clock begins anew, an hour later."""
    elapsed, now = 0.0, datetime(2026, 1, 31, tzinfo=UTC)
    with RunFolder.create(folder, config_yaml="", plan={}, facts={}) as run:
        for step, span in enumerate(spans, start=1):
            elapsed, now = elapsed + span, now + timedelta(seconds=span)
            if step % every == 0 or step == len(spans):
                machine = {"time": now.isoformat(timespec="milliseconds"), "elapsed_seconds": round(elapsed, 3)}
                run.log.write("step", step=step, loss=1.0, machine=machine)
            if step == resumed_after:
                elapsed, now = 0.0, now + timedelta(hours=1)
        run.finish({"metrics": {}, "seconds_per_step": 7.0, "steps": len(spans)})
    return folder


def test_steps_that_come_round_rarely_count_and_the_first_two_do_not(tmp_path: Path) -> None:
    spans = [50.0, 50.0, *[0.1, 0.1, 0.1, 0.7] * 3]
    found = time_of_trials([trial(tmp_path / "a", spans)])
    assert found is not None
    assert found.seconds == pytest.approx(0.25)
    assert (found.source, found.num_runs, found.num_steps) == ("trials", 1, 12)


def test_time_between_attempts_is_none_of_a_step(tmp_path: Path) -> None:
    found = time_of_trials([trial(tmp_path / "a", [0.5] * 12, resumed_after=4)])
    assert found is not None
    # the span over the gap is left out, and with it a step
    assert (found.seconds, found.num_steps) == (pytest.approx(0.5), 9)


def test_the_median_trial_speaks_for_all(tmp_path: Path) -> None:
    folders = [trial(tmp_path / str(span), [span] * 10, every=3) for span in (0.2, 0.3, 4.0)]
    found = time_of_trials(folders)
    assert found is not None
    assert (found.seconds, found.num_runs) == (pytest.approx(0.3), 3)
    few = time_of_trials([trial(tmp_path / "few", [0.2, 0.2])])
    assert few is not None
    assert few.seconds == 7.0, "too few steps: what the run says of itself"
    assert time_of_trials([]) is None
