"""Runs as results of the PEFT suite: its reader finds what it needs, and ours finds again what was written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from foreign_results import suite_result, write, write_lines

from subspace.cli.main import main
from subspace.core.errors import DataError, ResourceError
from subspace.report.arms import arrange
from subspace.report.load import read_run, read_runs
from subspace.report.peft_suite import export_peft_suite
from subspace.report.record import RunRecord
from subspace.report.score_tables import score_tables
from subspace.report.tables import summary_rows

MakeRun = Callable[..., Path]

SCORES = {
    "before": {"exact_match": 0.1},
    "validation": {"exact_match": 0.7, "loss": 0.4},
    "gsm8k": {"exact_match": 0.25, "exact_match_flexible": 0.5},
}
INTEGERS = (
    "accelerator_memory_reserved_avg",
    "accelerator_memory_max",
    "accelerator_memory_reserved_99th",
    "file_size",
    "num_trainable_params",
)


def export(paths: list[Path], out: Path) -> list[dict[str, Any]]:
    written, _ = export_peft_suite(paths, out)
    return [json.loads(path.read_text()) for path in written]


def figures(run: RunRecord) -> dict[str, Any]:
    """Return all that tables and curves show of a run, but for its name."""
    (row,) = summary_rows([run])
    shown = {key: value for key, value in dataclasses.asdict(row).items() if key != "run"}
    series = {
        (event, key): run.series(event, key)
        for event in ("step", "eval")
        for key in ("loss", "grad_norm", "learning_rate", "epoch")
    }
    return {**shown, **series, "metrics": run.metrics, "config": run.config, "total": run.total_steps}


def items(run: RunRecord, split: str) -> list[Any]:
    if split in run.answers:
        return list(run.answers[split]())
    return [json.loads(line) for line in run.predictions[split].read_text().splitlines()]


def test_the_reader_of_the_suite_finds_what_it_needs(make_run: MakeRun, tmp_path: Path) -> None:
    """The fields that the suite's own processing looks up, with the types that it casts to."""
    made = [
        make_run("a", seed=1, metrics=SCORES),
        make_run("b", method="galore", metrics={"validation": {"loss": 0.4}}),
    ]
    first, second = export(made, tmp_path / "out")
    for tree in (first, second):
        run, trained, meta = tree["run_info"], tree["train_info"], tree["meta_info"]
        assert all(isinstance(run[key], str) for key in ("experiment_name", "peft_branch", "created_at", "error_msg"))
        assert isinstance(run["total_time"], float)
        assert isinstance(run["train_config"]["model_id"], str)
        assert trained["status"] == "success"
        assert all(type(trained[key]) is int for key in INTEGERS)
        assert isinstance(trained["train_time"], float)
        last = trained["metrics"][-1]
        assert isinstance(last["train loss"], float)
        assert type(last["train samples"]) is type(last["train total tokens"]) is int
        assert last.keys() >= {"step", "test accuracy", "forgetting"}
        for name in ("peft", "transformers", "datasets", "torch", "bitsandbytes"):
            assert f"{name}-version" in meta["package_info"]
        assert meta["system_info"]["accelerator"] == "cpu"
    assert first["train_info"]["metrics"][-1]["test accuracy"] == 0.7
    assert second["train_info"]["metrics"][-1]["test accuracy"] is None
    assert (first["run_info"]["peft_config"]["peft_type"], second["run_info"]["peft_config"]["peft_type"]) == (
        "LORA",
        "GALORE",
    )
    assert [entry["step"] for entry in first["train_info"]["metrics"]] == [10, 20, 30, 40, 40]
    assert first["run_info"]["train_config"]["seed"] == 1


def test_there_and_back_every_figure_is_the_same(make_run: MakeRun, tmp_path: Path) -> None:
    made = [make_run(f"lora-{seed}", seed=seed, metrics=SCORES) for seed in (1, 2)]
    export_peft_suite(made, tmp_path / "out")
    again = read_runs([tmp_path / "out"])
    assert len(again) == 2
    for old, new in zip(read_runs(made), again, strict=True):
        assert figures(new) == figures(old)
        assert items(new, "validation") == items(old, "validation")
        assert new.planned_peak_bytes == old.planned_peak_bytes
        assert new.manifest["attempts"][-1]["versions"]["torch"] == old.manifest["attempts"][-1]["versions"]["torch"]
        assert new.notes == ()


def test_answers_that_went_there_and_back_are_judged_as_before(make_run: MakeRun, tmp_path: Path) -> None:
    """Item by item: the statistics of the exported runs are those of the run folders, also with one of each."""
    made = []
    for method, right in (("lora", 3), ("galore", 5)):
        for seed in (1, 2):
            found = [
                {"index": n, "id": f"q/{n}", "exact_match": float(n < right + seed), "output": "x"} for n in range(8)
            ]
            score = sum(item["exact_match"] for item in found) / 8
            folder = make_run(
                f"{method}-{seed}", method=method, seed=seed, metrics={"validation": {"exact_match": score}}
            )
            write_lines(folder / "predictions" / "validation.jsonl", found)
            made.append(folder)
    export_peft_suite(made, tmp_path / "out")
    (ours,) = score_tables(arrange(read_runs(made)))
    assert ours.table is not None
    assert ours.table.values.shape == (2, 2, 8)
    mixed = [made[0], made[1], *sorted((tmp_path / "out").glob("galore*"))]
    for paths in ([tmp_path / "out"], mixed):
        (theirs,) = score_tables(arrange(read_runs(paths)))
        assert theirs.table is not None
        assert (theirs.metric, theirs.table.seeds) == (ours.metric, ours.table.seeds)
        order = [theirs.table.arms.index(arm) for arm in ours.table.arms]
        assert (theirs.table.values[order] == ours.table.values).all()
        assert theirs.remarks == ours.remarks


def test_the_suite_alone_carries_score_cost_and_seed(make_run: MakeRun, tmp_path: Path) -> None:
    """Without our key, as a file would be whose writer is the suite."""
    made = make_run(seed=5, metrics=SCORES)
    (tree,) = export([made], tmp_path / "out")
    del tree["subspace"]
    old, new = read_run(made), read_run(write(tmp_path / "bare.json", tree))
    assert new.metrics["test"] == {"accuracy": 0.7}
    for fact in ("method", "model", "data", "seed", "outcome", "trained_parameters", "measured_peak_bytes", "seconds"):
        assert getattr(new, fact) == getattr(old, fact), fact
    assert (new.last_step, new.total_steps) == (40, 40)
    assert new.series("eval", "loss") == old.series("eval", "loss")
    steps, losses = new.series("step", "loss")
    assert steps == [10, 20, 30, 40]
    known = old.series("step", "loss")[1]
    assert losses == pytest.approx([sum(known[start : start + 10]) / 10 for start in range(0, 40, 10)])


def test_the_figures_of_the_suite_count_over_our_key(make_run: MakeRun, tmp_path: Path) -> None:
    (tree,) = export([make_run(metrics=SCORES)], tmp_path / "out")
    tree["train_info"] |= {"train_time": 9.5, "num_trainable_params": 77}
    tree["train_info"]["metrics"][-1]["test accuracy"] = 0.75
    run = read_run(write(tmp_path / "edited.json", tree))
    assert (run.seconds, run.trained_parameters, run.metrics["validation"]["exact_match"]) == (9.5, 77, 0.75)


def test_what_is_unknown_is_told_and_stays_unknown(make_run: MakeRun, tmp_path: Path) -> None:
    written, notes = export_peft_suite([make_run("a", finished=False)], tmp_path / "out")
    tree = json.loads(written[0].read_text())
    assert (tree["train_info"]["accelerator_memory_max"], tree["train_info"]["status"]) == (0, "canceled")
    assert "a: unknown, written as 0: file_bytes, measured_peak_bytes" in notes
    (run,) = read_runs([tmp_path / "out"])
    assert (run.measured_peak_bytes, run.outcome) == (None, "stopped")


def test_sizes_and_adapter_of_a_run_folder(make_run: MakeRun, tmp_path: Path) -> None:
    made = make_run(method="pissa")
    write(made / "adapter" / "adapter_config.json", {"peft_type": "LORA", "r": 4})
    (made / "adapter" / "adapter_model.safetensors").write_bytes(b"x" * 321)
    (tree,) = export([made], tmp_path / "out")
    assert tree["train_info"]["file_size"] == 321
    # Their table groups by this type; what PEFT stores as LORA is another method for the reader of the table.
    assert tree["run_info"]["peft_config"] == {"peft_type": "PISSA", "r": 4, "rank": 8}


def test_full_fine_tuning_has_no_adapter(make_run: MakeRun, tmp_path: Path) -> None:
    (tree,) = export([make_run(method="full")], tmp_path / "out")
    assert tree["run_info"]["peft_config"] is None
    assert read_runs([tmp_path / "out"])[0].method == "full"


def test_percentile_and_mean_of_memory(make_run: MakeRun, tmp_path: Path) -> None:
    (tree,) = export([make_run(steps=101)], tmp_path / "out")
    trained = tree["train_info"]
    assert trained["accelerator_memory_reserved_99th"] == 600_000_000 + 100
    assert trained["accelerator_memory_reserved_avg"] == 600_000_000 + 51


def test_a_result_of_the_suite_passes_through(tmp_path: Path) -> None:
    write(tmp_path / "theirs" / "x.json", suite_result())
    (tree,) = export([tmp_path / "theirs"], tmp_path / "out")
    assert (tmp_path / "out" / "lora--llama-rank32.json").is_file()
    before = suite_result()["train_info"]
    for key in (*INTEGERS, "train_time", "status", "num_total_params"):
        assert tree["train_info"][key] == before[key], key
    for old, new in zip(before["metrics"], tree["train_info"]["metrics"], strict=True):
        kept = old.keys() - {"train time", "eval time"}
        assert {key: new[key] for key in kept} == {key: old[key] for key in kept}
    assert tree["run_info"]["total_time"] == 1153.25


def test_names_never_collide(make_run: MakeRun, tmp_path: Path) -> None:
    for folder in ("a b", "a+b", "a-b"):
        make_run(folder)
    written, _ = export_peft_suite([tmp_path / "outputs"], tmp_path / "out")
    assert [path.name for path in written] == ["lora--a-b.json", "lora--a+b.json", "lora--a-b-2.json"]


def test_bad_inputs(make_run: MakeRun, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="E-DAT-001"):
        export_peft_suite([tmp_path / "nowhere"], tmp_path / "out")
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="E-RES-002"):
        export_peft_suite([make_run()], tmp_path / "file")


def test_our_key_may_hold_anything(make_run: MakeRun, tmp_path: Path) -> None:
    (tree,) = export([make_run(metrics=SCORES)], tmp_path / "out")
    for key in tree["subspace"]:
        for nonsense in (None, 3, "text", [1, [2]], {"a": 1}):
            read_run(write(tmp_path / "odd.json", {**tree, "subspace": {**tree["subspace"], key: nonsense}}))


def test_the_verb(make_run: MakeRun, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run("a")
    make_run("b", seed=2)
    with pytest.raises(SystemExit) as left:
        main(["results", str(tmp_path / "outputs"), "--out", str(tmp_path / "out"), "--format", "peft-suite"])
    assert left.value.code == 0
    shown = capsys.readouterr()
    assert shown.out == f"wrote 2 results of the PEFT comparison suite to {tmp_path / 'out'}\n"
    assert "file_bytes" in shown.err
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["lora--a.json", "lora--b.json"]
    with pytest.raises(SystemExit) as left:
        main(["results", str(tmp_path / "outputs"), "--out", str(tmp_path / "out"), "--format", "other"])
    assert left.value.code == 2
    assert "E-CLI-001" in capsys.readouterr().err
