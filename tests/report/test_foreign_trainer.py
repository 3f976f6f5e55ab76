"""Output folders of the transformers Trainer and of LLaMA-Factory."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from foreign_results import ADAPTER, FACTORY_LOG, OLD_FACTORY_LOG, STATE, write, write_lines

from subspace.report.foreign import is_foreign, read_foreign
from subspace.report.load import read_runs
from subspace.report.record import RunRecord

CARD = """\
---
base_model: Qwen/Qwen2.5-1.5B
---
The following hyperparameters were used during training:
- learning_rate: 0.0001
- seed: 7
- lr_scheduler_type: cosine
"""
RECIPE = """\
model_name_or_path: Qwen/Qwen2.5-7B
stage: sft
finetuning_type: lora
use_dora: true
dataset: alpaca
cutoff_len: 2048
learning_rate: 1.0e-4
seed: 11
"""


def read(path: Path) -> RunRecord:
    found = read_foreign(path)
    assert found is not None
    return found


def test_a_finished_run_of_the_trainer(tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    write(folder / "trainer_state.json", STATE)
    write(folder / "adapter_config.json", ADAPTER | {"use_dora": True})
    (folder / "README.md").write_text(CARD)
    run = read(folder)
    assert (run.name, run.method, run.model, run.seed) == ("theirs", "dora", "Qwen/Qwen2.5-7B", 7)
    assert (run.outcome, run.last_step, run.total_steps, run.seconds) == ("finished", 40, 40, 120.5)
    assert run.series("step", "loss") == ([10, 20, 30, 40], [2.5, 2.0, 1.5, 1.25])
    assert run.series("step", "grad_norm")[1] == [11.0, 9.5, 7.0, 6.0]
    assert run.series("step", "learning_rate")[1] == [1e-4, 9e-5, 5e-5, 0.0]
    assert run.series("step", "epoch")[1] == [0.5, 1.0, 1.5, 2.0]
    assert run.series("eval", "loss", split="validation") == ([20, 40], [2.25, 1.75])
    assert run.metrics == {"validation": {"accuracy": 0.5, "loss": 1.75}}
    assert run.plan == {"run_flops": 2.5e12}
    assert run.config["training"]["learning_rate"] == 1e-4
    assert run.config["method"] == {"name": "dora", "rank": 8, "alpha": 16, "use_dora": True}
    assert run.notes == ()


def test_the_furthest_checkpoint_counts_where_training_did_not_end(tmp_path: Path) -> None:
    for step in (20, 100, 30):
        history = [entry for entry in STATE["log_history"] if entry["step"] <= step][:4]
        write(
            tmp_path / "out" / f"checkpoint-{step}" / "trainer_state.json",
            STATE | {"global_step": step, "max_steps": 200, "log_history": history},
        )
    write(tmp_path / "out" / "checkpoint-100" / "adapter_config.json", ADAPTER)
    run = read(tmp_path / "out")
    assert (run.method, run.outcome, run.last_step, run.total_steps) == ("lora", "unfinished", 30, 200)
    assert run.notes == ("the run is not finished (unfinished, step 30)", "seed unknown")
    assert read(tmp_path / "out" / "checkpoint-20").last_step == 20
    assert read(tmp_path / "out" / "checkpoint-20" / "trainer_state.json").last_step == 20
    assert [record.name for record in read_runs([tmp_path])] == ["out"]


def test_whole_weights_are_full_fine_tuning(tmp_path: Path) -> None:
    write(tmp_path / "trainer_state.json", STATE)
    write(tmp_path / "config.json", {"_name_or_path": "gpt2"})
    (tmp_path / "model.safetensors").write_bytes(b"")
    assert (read(tmp_path).method, read(tmp_path).model) == ("full", "gpt2")


def test_a_training_that_stopped_early_did_end(tmp_path: Path) -> None:
    write(tmp_path / "trainer_state.json", STATE | {"max_steps": 400})
    assert read(tmp_path).outcome == "finished"
    cut = {**STATE, "max_steps": 400, "log_history": STATE["log_history"][:-1]}
    write(tmp_path / "trainer_state.json", cut)
    assert read(tmp_path).outcome == "unfinished"


def test_numbers_as_text_and_numbers_that_are_none(tmp_path: Path) -> None:
    history = [
        {"loss": "2.5", "grad_norm": float("nan"), "step": 10},
        {"loss": float("inf"), "step": 20},
        {"step": "x"},
    ]
    write(tmp_path / "trainer_state.json", {"log_history": history, "global_step": 20, "max_steps": 20})
    run = read(tmp_path)
    assert run.series("step", "loss") == ([10], [2.5])
    assert "not finite in 2 places: grad_norm, loss" in run.notes


def test_llamafactory_alone(tmp_path: Path) -> None:
    write_lines(tmp_path / "trainer_log.jsonl", FACTORY_LOG)
    write(
        tmp_path / "all_results.json", {"eval_loss": 1.7, "predict_rouge-1": 31.5, "predict_runtime": 2.0, "epoch": 2.0}
    )
    (tmp_path / "run.yaml").write_text(RECIPE)
    run = read(tmp_path)
    assert (run.method, run.model, run.data, run.seed) == ("dora", "Qwen/Qwen2.5-7B", "alpaca", 11)
    assert (run.outcome, run.last_step, run.total_steps, run.seconds) == ("finished", 40, 40, 86530.0)
    assert run.series("step", "loss") == ([10, 20, 40], [2.5, 2.0, 1.25])
    assert run.series("step", "learning_rate")[1] == [1e-4, 9e-5, 0.0]
    assert run.series("eval", "loss", split="validation") == ([20], [2.25])
    steps = [record for record in run.log if record["event"] == "step"]
    assert [record["machine"]["elapsed_seconds"] for record in steps] == [32.0, 63.0, 86530.0]
    assert (steps[0]["machine"]["tokens_per_second"], steps[0]["num_tokens"]) == (512.5, 16400)
    assert run.measured_peak_bytes == int(2.75 * 2**30)
    assert run.metrics == {"validation": {"loss": 1.7}, "test": {"rouge-1": 31.5}}
    assert run.notes == ()


def test_llamafactory_of_2024(tmp_path: Path) -> None:
    write_lines(tmp_path / "trainer_log.jsonl", OLD_FACTORY_LOG)
    run = read(tmp_path / "trainer_log.jsonl")
    assert run.series("step", "loss") == ([10], [2.5])
    assert run.series("step", "learning_rate") == ([10], [1e-4])
    assert run.series("eval", "loss") == ([20], [2.25])
    assert (run.outcome, run.seconds) == ("unfinished", 70.0)
    assert "tokens_per_second" not in run.log[1]["machine"]


def test_llamafactory_beside_the_state_of_the_trainer(tmp_path: Path) -> None:
    write(tmp_path / "trainer_state.json", STATE)
    write_lines(tmp_path / "trainer_log.jsonl", FACTORY_LOG)
    run = read(tmp_path)
    assert run.series("step", "loss")[0] == [10, 20, 30, 40]
    clocks = [record["machine"].get("elapsed_seconds") for record in run.log if record["event"] == "step"]
    assert clocks == [32.0, 63.0, None, 86530.0]
    assert (run.seconds, run.measured_peak_bytes) == (120.5, int(2.75 * 2**30))
    assert run.metrics["validation"] == {"accuracy": 0.5, "loss": 1.75}


@pytest.mark.parametrize(
    ("recipe", "method"),
    [
        ("finetuning_type: full\nuse_galore: true", "galore"),
        ("finetuning_type: full\nuse_apollo: true", "apollo"),
        ("finetuning_type: lora\npissa_init: true", "pissa"),
        ("finetuning_type: freeze", "freeze"),
        ("other: 1", ""),
        ("[", ""),
    ],
)
def test_methods_of_llamafactory(tmp_path: Path, recipe: str, method: str) -> None:
    write_lines(tmp_path / "trainer_log.jsonl", FACTORY_LOG)
    (tmp_path / "run.yaml").write_text(recipe)
    run = read(tmp_path)
    assert run.method == method
    assert run.seed == (42 if method else None)


def test_a_run_that_was_resumed_is_logged_twice(tmp_path: Path) -> None:
    again = copy.deepcopy(FACTORY_LOG[1]) | {"loss": 1.9}
    write_lines(tmp_path / "trainer_log.jsonl", [*FACTORY_LOG[:3], again])
    run = read(tmp_path)
    assert run.series("step", "loss") == ([10, 20], [2.5, 1.9])
    assert "1 records logged twice; the last of each is shown" in run.notes


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", '{"log_history": 3}', '{"log_history": [1, {"step": 1}, null]}', "\0"]
)
def test_damaged_states_are_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "trainer_state.json").write_text(text)
    run = read(tmp_path)
    assert "no loss and no evaluation was logged" in run.notes
    if not text.startswith("{") or text == "{":
        assert run.notes[0].startswith("trainer_state.json is not")


def test_damaged_lines_and_neighbours_are_named(tmp_path: Path) -> None:
    lines = [json.dumps(row) for row in FACTORY_LOG]
    (tmp_path / "trainer_log.jsonl").write_text("\n".join([lines[0], "[1]", "", lines[1], lines[2][:30]]))
    (tmp_path / "all_results.json").write_text("{")
    (tmp_path / "adapter_config.json").write_bytes(b"\xff")
    run = read(tmp_path)
    assert run.series("step", "loss") == ([10, 20], [2.5, 2.0])
    assert "trainer_log.jsonl: 2 lines are no JSON object; ignored" in run.notes
    assert any(note.startswith("all_results.json is not readable (") for note in run.notes)
    assert any(note.startswith("adapter_config.json is not readable (") for note in run.notes)


def test_what_is_no_output_folder_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "checkpoint-5").mkdir()
    write(tmp_path / "all_results.json", {"train_loss": 1.0})
    assert not is_foreign(tmp_path)
    assert not is_foreign(tmp_path / "all_results.json")


def test_our_own_folder_is_never_read_as_theirs(make_run: object, tmp_path: Path) -> None:
    folder = make_run("ours", method="galore")  # type: ignore[operator]
    write(folder / "trainer_state.json", STATE)
    (run,) = read_runs([folder])
    assert (run.method, run.last_step) == ("galore", 40)
