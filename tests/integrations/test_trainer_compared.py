"""Runs that the callback recorded meet in a comparison: curves, arms over seeds, scores that are judged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from trainer_runs import QUIET

from subspace.integrations.transformers_callback import UnifiedLogCallback
from subspace.models.tiny import tiny_model
from subspace.report.arms import arrange
from subspace.report.compare import compare
from subspace.report.load import read_runs
from subspace.report.score_tables import score_tables
from subspace.runs.layout import RunLayout

pytestmark = QUIET

ROWS = [{"input_ids": [1, 5 + row % 3, 6, 7], "labels": [1, 5 + row % 3, 6, 7]} for row in range(8)]


def trainer(folder: Path, kind: str, seed: int, **options: Any) -> Any:
    """Return a Trainer with the callback; its score is made up from what it trains."""
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    model = tiny_model("llama", hidden_size=16)
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=2, target_modules=["v_proj", "q_proj"], task_type="CAUSAL_LM"))
    args = TrainingArguments(
        output_dir=str(folder / "theirs"),
        max_steps=2,
        logging_steps=1,
        per_device_train_batch_size=2,
        learning_rate=1e-3,
        seed=seed,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        **options,
    )
    score = {"lora": 0.5, "full": 0.75}[kind] + seed / 100
    callback = UnifiedLogCallback(folder, method="" if kind == "lora" else kind, data="sums")
    return Trainer(
        model,
        args,
        train_dataset=ROWS,
        eval_dataset=ROWS[:4],
        compute_metrics=lambda found: {"accuracy": score},
        callbacks=[callback],
    )


def test_runs_of_the_callback_are_compared(tmp_path: Path) -> None:
    folders = []
    for kind in ("lora", "full"):
        for seed in (1, 2):
            folder = tmp_path / f"{kind}-{seed}"
            made = trainer(folder, kind, seed)
            made.train()
            made.evaluate()
            made.predict(ROWS[:4])
            folders.append(folder)
    records = read_runs(folders)
    assert [(run.method, run.seed, run.data) for run in records] == [
        ("lora", 1, "sums"),
        ("lora", 2, "sums"),
        ("full", 1, "sums"),
        ("full", 2, "sums"),
    ]
    assert records[0].metrics["validation"]["accuracy"] == records[0].metrics["test"]["accuracy"] == 0.51
    assert "runtime" not in " ".join(records[0].metrics["test"])
    assert records[0].trained_parameters is not None
    assert records[2].trained_parameters is not None
    assert 0 < records[0].trained_parameters < records[2].trained_parameters
    assert records[0].config["method"]["rank"] == 2
    assert records[0].config["method"]["target_modules"] == ["q_proj", "v_proj"]
    assert records[0].config["training"]["learning_rate"] == 1e-3
    arms = arrange(records)
    assert [(group.label, len(group.records)) for group in arms.groups] == [("lora", 2), ("full", 2)]
    (scored,) = score_tables(arms)
    assert scored.table is not None
    assert (scored.table.arms, scored.table.seeds, scored.metric) == (("lora", "full"), (1, 2), "accuracy")
    assert scored.scores == {"lora": {1: 0.51, 2: 0.52}, "full": {1: 0.76, 2: 0.77}}
    made_page = compare(folders, tmp_path / "page")
    assert made_page.curves is not None
    assert "accuracy" in made_page.page.read_text(encoding="utf-8")


def test_scores_before_training_are_those_of_the_untuned_model(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    made = trainer(folder, "full", 1, eval_strategy="steps", eval_steps=1, eval_on_start=True)
    made.evaluate()
    assert set(json.loads(RunLayout(folder).metrics.read_text())) == {"before"}
    made.train()
    held = json.loads(RunLayout(folder).metrics.read_text())
    assert held.keys() == {"before", "validation"}
    assert held["before"]["loss"] > held["validation"]["loss"]
    # Another process evaluates what was trained here: it has made no step, and yet this is not the untuned model.
    trainer(folder, "full", 1).evaluate()
    again = json.loads(RunLayout(folder).metrics.read_text())
    assert again["before"] == held["before"]
    assert again["validation"]["loss"] != held["validation"]["loss"]


def test_damaged_scores_are_replaced_and_not_finite_ones_named(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    layout = RunLayout(tmp_path)
    layout.metrics.write_text("[")
    arguments = TrainingArguments(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True)
    callback, control = UnifiedLogCallback(tmp_path), TrainerControl()
    state = TrainerState(global_step=3, is_world_process_zero=True)
    callback.on_evaluate(arguments, state, control, {"eval_loss": float("nan"), "eval_f1": "0.5", "eval_note": "x"})
    assert json.loads(layout.metrics.read_text()) == {
        "validation": {"f1": 0.5, "loss": None},
        "nonfinite": ["validation.loss"],
    }
    (run,) = _read_beside_a_log(layout)
    assert run.metrics == {"validation": {"f1": 0.5}}
    callback.on_evaluate(arguments, state, control, {"eval_runtime": 1.0})
    state.is_world_process_zero = False
    callback.on_evaluate(arguments, state, control, {"eval_f1": 1.0})
    assert json.loads(layout.metrics.read_text())["validation"]["f1"] == 0.5


def _read_beside_a_log(layout: RunLayout) -> list[Any]:
    layout.log.write_text("")
    return read_runs([layout.folder])


def test_a_trainer_without_a_known_model(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    arguments = TrainingArguments(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True, seed=5)
    callback = UnifiedLogCallback(tmp_path / "ours")
    state = TrainerState(max_steps=1, is_world_process_zero=True)
    callback.on_train_begin(arguments, state, TrainerControl())
    callback.on_train_end(arguments, state, TrainerControl())
    (run,) = read_runs([tmp_path / "ours"])
    assert (run.method, run.model, run.seed, run.trained_parameters) == ("", "", 5, None)
