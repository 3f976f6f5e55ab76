"""Tables: every number once, in long form, and one line per run."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from subspace.report.arms import arrange
from subspace.report.epochs import Epoch, read_epochs
from subspace.report.load import read_run, read_runs
from subspace.report.tables import (
    format_score,
    main_metric,
    summary_rows,
    summary_table,
    write_epochs,
    write_summary,
    write_tidy,
)

MakeRun = Callable[..., Path]


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_tidy_table_holds_every_logged_number(make_run: MakeRun, tmp_path: Path) -> None:
    scores = {"before": {"exact_match": 0.1}, "validation": {"exact_match": 0.7}}
    run = read_run(make_run("a,b", seed=3, steps=4, eval_every=2, metrics=scores))
    write_tidy([run], tmp_path / "tidy.csv")
    rows = read_csv(tmp_path / "tidy.csv")
    assert list(rows[0]) == ["run", "method", "fidelity", "model", "seed", "step", "metric", "value"]
    assert {row["run"] for row in rows} == {"a,b"}
    assert {(row["method"], row["seed"]) for row in rows} == {("lora", "3")}
    counts: dict[str, int] = {}
    for row in rows:
        counts[row["metric"]] = counts.get(row["metric"], 0) + 1
        float(row["value"])
    assert counts == {
        "train.epoch": 4, "train.loss": 4, "train.learning_rate": 4, "train.grad_norm": 4,
        "machine.elapsed_seconds": 4, "machine.rss_bytes": 4,
        "validation.loss": 2, "validation.num_targets": 2, "validation.exact_match": 1, "before.exact_match": 1,
    }  # fmt: skip
    losses = [float(row["value"]) for row in rows if row["metric"] == "train.loss"]
    assert losses == run.series("step", "loss")[1]
    ends = {row["metric"]: row["step"] for row in rows if row["metric"].endswith("exact_match")}
    assert ends == {"before.exact_match": "0", "validation.exact_match": "4"}


def test_the_summary_has_a_line_per_run(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", metrics={"before": {"exact_match": 0.1}, "validation": {"exact_match": 0.7, "loss": 0.3}})
    make_run("b", method="dora", finished=False, end=0.9)
    records = read_runs([tmp_path / "outputs"])
    write_summary(summary_rows(records), tmp_path / "summary.csv")
    first, second = read_csv(tmp_path / "summary.csv")
    assert (first["run"], first["metric"], first["score_before"], first["score"]) == ("a", "exact_match", "0.1", "0.7")
    assert (first["trained_parameters"], first["planned_peak_bytes"]) == ("123456", "380000000")
    assert (second["method"], second["outcome"], second["score"], second["measured_peak_bytes"]) == (
        "dora",
        "stopped",
        "",
        "",
    )
    assert float(second["best_validation_loss"]) == min(records[1].series("eval", "loss")[1])


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([{"loss": 1.0, "exact_match": 0.5}, {"loss": 1.0, "exact_match": 0.4}], "exact_match"),
        ([{"loss": 1.0, "exact_match": 0.5}, {"loss": 1.0}], "loss"),
        ([{"own": 1.0}], "own"),
        ([{}, {}], None),
    ],
)
def test_the_main_metric_is_what_most_runs_were_scored_by(
    scores: list[dict[str, float]], expected: str | None, make_run: MakeRun, tmp_path: Path
) -> None:
    for index, found in enumerate(scores):
        make_run(f"run-{index}", metrics={"validation": found}, steps=2)
    assert main_metric(read_runs([tmp_path / "outputs"])) == expected


@pytest.mark.parametrize(
    ("metric", "value", "expected"),
    [
        ("accuracy", 0.8349, "83.5 %"),
        ("loss", 0.5, "0.5"),
        ("perplexity", 12.3456, "12.35"),
        ("own", 3.0, "3"),
        ("f1", None, "–"),
    ],
)
def test_scores_are_written_as_people_read_them(metric: str, value: float | None, expected: str) -> None:
    assert format_score(metric, value) == expected


def test_the_terminal_table_takes_names_literally(make_run: MakeRun, tmp_path: Path) -> None:
    from rich.console import Console

    make_run("[red]one", metrics={"before": {"exact_match": 0.1}, "validation": {"exact_match": 0.7}})
    make_run("two", method="dora", finished=False)
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(summary_table(read_runs([tmp_path / "outputs"])))
    shown = console.export_text()
    for expected in ("[red]one", "10.0 %", "70.0 %", "123.46K", "362.40 MiB", "372.89 MiB", "21.5 s", "stopped"):
        assert expected in shown


def evaluated(step: int, loss: float, **more: Any) -> dict[str, Any]:
    return {"event": "eval", "split": "validation", "step": step, "loss": loss, **more}


def test_epochs_are_read_from_evaluations_at_their_ends() -> None:
    log = [
        evaluated(3, 2.5, epoch=0.6, machine={"elapsed_seconds": 4.0, "seconds": 1.0}),
        evaluated(5, 2.0, epoch=1.0, machine={"elapsed_seconds": 8.0, "seconds": 1.0}),
        {"event": "eval", "split": "test", "step": 10, "loss": 9.0, "epoch": 2.0},
        evaluated(10, 1.5, epoch=2.0, machine={"elapsed_seconds": 15.0, "seconds": 1.0}),
        evaluated(20, 1.0, epoch=4.0, machine={"elapsed_seconds": 30.0, "seconds": 1.0}),
        evaluated(25, 0.9, epoch=5.0),
        evaluated(30, 0.8, epoch=6.0, machine={"elapsed_seconds": 50.0, "seconds": 1.0}),
        evaluated(31, 0.8, epoch=6.2, machine={"elapsed_seconds": 52.0, "seconds": 1.0}),
    ]
    # of the fourth the begin is unknown, of the fifth the end, and so the begin of the sixth
    assert list(read_epochs(log)) == [
        Epoch(1, 5, 2.0, 6.0), Epoch(2, 10, 1.5, 6.0), Epoch(4, 20, 1.0, None), Epoch(5, 25, 0.9, None),
        Epoch(6, 30, 0.8, None),
    ]  # fmt: skip


def test_older_logs_tell_of_epochs_in_their_steps() -> None:
    log = [
        {"event": "step", "step": 5, "epoch": 1.0, "machine": {"elapsed_seconds": 7.0}},
        evaluated(5, 2.0),
        {"event": "step", "step": 9, "epoch": 1.8, "machine": {"elapsed_seconds": 11.0}},
        evaluated(10, 1.5),
    ]
    assert list(read_epochs(log)) == [Epoch(1, 5, 2.0, 7.0)]
    log[2]["epoch"] = 2.0
    log[3]["step"] = 9
    # how long the first evaluation took is not known, and so is not the second epoch's training
    assert list(read_epochs(log)) == [Epoch(1, 5, 2.0, 7.0), Epoch(2, 9, 1.5, None)]


def test_the_epochs_of_runs_are_a_table(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a", eval_every=20, seconds=40.0)
    make_run("b", data="own/rows.jsonl", eval_every=20, steps=20)
    write_epochs(arrange(read_runs([tmp_path / "outputs"])).fields, tmp_path / "epochs.csv")
    first, second, other = read_csv(tmp_path / "epochs.csv")
    assert list(first) == ["run", "method", "fidelity", "model", "seed", "task", "number", "step", "loss", "seconds"]
    assert (first["run"], first["number"], first["step"], first["seconds"]) == ("a", "1", "20", "20.0")
    assert [row["task"] for row in (first, second, other)] == ["word-problems", "word-problems", "rows.jsonl"]
    assert (second["number"], second["step"], second["seconds"]) == ("2", "40", "20.0")
    assert float(second["loss"]) < float(first["loss"])
