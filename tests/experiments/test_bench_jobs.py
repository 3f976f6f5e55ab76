"""A bench does every job once, survives workers and matrices that misbehave, and says what became of each job."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from stub_bench import WriteMatrix, executed, journal, run_stub, sealed_runs
from stub_worker import ALWAYS_KILLED, DIVERGES, FAILS, KILLED_ONCE

from subspace.core.errors import UsageError
from subspace.experiments.bench import Bench, Observer
from subspace.experiments.jobs import Job
from subspace.runs.layout import RunLayout

BASE = "runs/words/tiny-llama"
NUM_JOBS = 2 * (4 + 2) + 4


def read(path: Path) -> Any:
    return json.loads(path.read_bytes())


def arms(decay: float) -> dict[str, Any]:
    return {"full": {"method": "full"}, "lora": {"method": "lora", "training": {"weight_decay": decay}}}


def test_every_job_is_done_once_and_told(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_stub(write_matrix(), out)
    assert (len(result.runs), result.failures, result.num_jobs) == (4, (), NUM_JOBS)
    assert sorted(event for _, event, _ in executed(out)) == ["begin"] * NUM_JOBS + ["end"] * NUM_JOBS
    assert len(sealed_runs(out)) == NUM_JOBS

    bench = read(out / "bench.json")
    assert bench["schema"] == "subspace.bench/1"
    assert bench["family"] == {"reference": "full", "metric": {"words": "loss"}}
    assert bench["budget"] == {"kind": "steps", "value": 6}
    assert {(job["arm"], job["seed"], job["learning_rate"], job["state"]) for job in bench["jobs"]} == {
        (arm, seed, 1e-2, "finished") for arm in ("full", "lora") for seed in (1, 2)
    }
    assert all((out / job["run"] / "manifest.json").is_file() for job in bench["jobs"])
    assert bench["searches"] == [f"{BASE}/{arm}/search.json" for arm in ("full", "lora")]


def test_a_search_halves_and_leaves_no_weights(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_stub(write_matrix(), out)
    search = read(out / BASE / "lora" / "search.json")
    assert search["schema"] == "subspace.search/1"
    assert (search["key"], search["metric"], search["higher_is_better"]) == ("training.learning_rate", "loss", False)
    tried = [(trial["rung"], trial["value"], trial["steps"]) for trial in search["trials"]]
    assert tried == [(0, 1e-3, 3), (0, 3e-3, 3), (0, 1e-2, 3), (0, 3e-2, 3), (1, 3e-3, 6), (1, 1e-2, 6)]
    assert (search["chosen"], search["at_edge"]) == (1e-2, False)
    assert search["seconds"] == pytest.approx(sum(trial["seconds"] for trial in search["trials"]), abs=0.01)
    for trial in search["trials"]:
        layout = RunLayout(out / trial["run"])
        assert layout.manifest.is_file()
        assert not layout.checkpoints.exists()
    assert not list(out.rglob("checkpoints")), "the final runs' are gone too, unless they are to be kept"


def test_what_is_done_is_done(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_stub(write_matrix({"seeds": [1]}), out)
    before, ids = executed(out), sealed_runs(out)
    again = run_stub(write_matrix({"seeds": [1]}), out)
    assert executed(out) == before
    assert again.num_kept == again.num_jobs
    wider = run_stub(write_matrix({"seeds": [1, 2]}), out)  # more seeds: only those are run
    new = [job for job, event, _ in executed(out)[len(before) :] if event == "end"]
    assert sorted(new) == [f"{BASE}/full/seed-2", f"{BASE}/lora/seed-2"]
    assert (wider.num_kept, wider.num_jobs) == (NUM_JOBS - 2, NUM_JOBS)
    assert ids.items() <= sealed_runs(out).items()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budget": {"steps": 8}, "search": None}, "max_steps is 8, not 6"),
        ({"arms": {"full": {"method": "full"}, "lora": {"method": {"name": "lora", "rank": 4}}}}, "rank is 4, not 2"),
    ],
)
def test_another_recipe_is_refused_and_nothing_is_touched(
    write_matrix: WriteMatrix, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    out = tmp_path / "out"
    common = {"search": None} if "search" in changes else {}
    run_stub(write_matrix(common), out)
    ids, bench = sealed_runs(out), (out / "bench.json").read_bytes()
    with pytest.raises(UsageError, match="E-CLI-004") as refused:
        run_stub(write_matrix({**common, **changes}), out)
    assert said in str(refused.value)
    assert sealed_runs(out) == ids
    assert (out / "bench.json").read_bytes() == bench


def test_a_worker_that_dies_costs_only_its_own_steps(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_stub(write_matrix({"arms": arms(KILLED_ONCE)}), out)
    assert result.failures == ()
    deaths = [entry["job"] for entry in journal(out) if entry["event"] == "death"]
    assert len(deaths) == len(set(deaths)) == 8  # each of lora's jobs, once
    assert all("/lora/" in job for job in deaths)
    resumed = [(job, step) for job, event, step in executed(out) if event == "begin" and step > 0]
    assert sorted(resumed) == sorted((job, 2) for job in deaths)


def test_a_job_that_always_kills_is_given_up(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_stub(write_matrix({"arms": arms(ALWAYS_KILLED), "search": None}), out)
    assert sorted(failure.job.seed for failure in result.failures) == [1, 2]
    assert all("signal 9" in failure.error for failure in result.failures)
    assert len(result.runs) == 2


def test_an_error_is_recorded_and_the_others_go_on(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_stub(write_matrix({"arms": arms(FAILS)}), out)
    failed = {failure.job.folder.relative_to(out).as_posix(): failure.error for failure in result.failures}
    assert failed, "its search would be smaller than the others', so it ends with the first failure"
    assert all(name.startswith(f"{BASE}/lora/search/rung-0/rate-") for name in failed)
    assert all(error.startswith("E-DAT-001") for error in failed.values())
    assert [path.parent.name for path in result.runs] == ["full", "full"]
    assert {entry["job"] for entry in read(out / "bench.json")["failures"]} == failed.keys()
    states = {(job["arm"], job["state"]) for job in read(out / "bench.json")["jobs"]}
    assert states == {("full", "finished"), ("lora", "unfinished")}


def test_a_rate_that_diverges_is_a_result_and_is_not_tried_again(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run_stub(write_matrix({"arms": arms(DIVERGES)}), out).failures == ()
    trials = {(trial["rung"], trial["value"]): trial for trial in read(out / BASE / "lora" / "search.json")["trials"]}
    assert trials[0, 3e-2]["score"] is None
    assert trials[0, 3e-2]["error"].startswith("E-NUM-001")
    assert (1, 3e-2) not in trials
    before = executed(out)
    assert run_stub(write_matrix({"arms": arms(DIVERGES)}), out).failures == ()
    assert executed(out) == before


def test_where_every_rate_diverges_the_arm_has_no_runs(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    search = {"learning_rates": [0.02, 0.03], "seed": 7}
    result = run_stub(write_matrix({"arms": arms(DIVERGES), "search": search}), tmp_path / "out")
    assert {failure.job.cell.arm for failure in result.failures} == {"lora"}
    assert "no learning rate" in result.failures[0].error
    assert len(result.runs) == 2


def test_progress_is_told(write_matrix: WriteMatrix, tmp_path: Path) -> None:
    class Seen(Observer):
        def __init__(self) -> None:
            self.outcomes: list[str] = []
            self.steps: set[tuple[int, int]] = set()
            self.remaining: list[float] = []

        def on_job(self, bench: Bench, job: Job, outcome: str, text: str) -> None:
            self.outcomes.append(outcome)

        def on_tick(self, bench: Bench) -> None:
            self.steps |= {(worker.step, worker.total) for worker in bench.workers if worker.phase == "train"}
            rest = bench.remaining_seconds()
            self.remaining += [] if rest is None else [rest]

    seen = Seen()
    run_stub(write_matrix({"budget": {"steps": 40}, "search": None}), tmp_path / "out", observer=seen)
    assert seen.outcomes == ["finished"] * 4
    assert any(0 < step < total == 40 for step, total in seen.steps)
    assert seen.remaining[-1] == 0.0
    assert seen.remaining[0] > 0.0
