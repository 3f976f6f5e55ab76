"""The callback inside TRL's real SFTTrainer and transformers' real Trainer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from subspace.models.tiny import write_tiny_folder
from subspace.report.compare import compare
from subspace.runs.layout import RunLayout
from subspace.runs.log import EVENTS, read_log

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
]


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    write_tiny_folder(folder, "llama", "causal_lm", 0)
    return folder


def check(folder: Path, steps: int) -> list[dict[str, Any]]:
    records, notes = read_log(RunLayout(folder).log)
    assert not notes
    events = [record["event"] for record in records]
    assert events[0] == "run_start"
    assert events[-1] == "run_end"
    logged = [record for record in records if record["event"] == "step"]
    assert [record["step"] for record in logged] == list(range(1, steps + 1))
    for record in records:
        known = {**EVENTS["every record"], **EVENTS[record["event"]]}
        assert record.keys() - known.keys() <= {"mean_token_accuracy", "entropy", "epoch", "seed"}, record
    assert all(record["loss"] > 0 and record["machine"]["elapsed_seconds"] >= 0 for record in logged)
    return records


def test_sft_trainer_of_trl(tmp_path: Path, tiny_folder: Path) -> None:
    trl = pytest.importorskip("trl")
    from datasets import Dataset
    from peft import LoraConfig

    from subspace.integrations.transformers_callback import UnifiedLogCallback

    rows = [{"prompt": f"{number} plus one is", "completion": f" {number + 1}"} for number in range(16)]
    config = trl.SFTConfig(
        output_dir=str(tmp_path / "theirs"),
        max_steps=3,
        per_device_train_batch_size=2,
        logging_steps=1,
        eval_strategy="steps",
        eval_steps=3,
        save_steps=3,
        report_to="none",
        bf16=False,
        use_cpu=True,
        gradient_checkpointing=False,
        disable_tqdm=True,
    )
    trainer = trl.SFTTrainer(
        model=str(tiny_folder),
        args=config,
        train_dataset=Dataset.from_list(rows),
        eval_dataset=Dataset.from_list(rows[:4]),
        peft_config=LoraConfig(r=2, task_type="CAUSAL_LM"),
        callbacks=[UnifiedLogCallback(tmp_path / "ours", method="lora")],
    )
    trainer.train()
    records = check(tmp_path / "ours", steps=3)
    theirs = json.loads((tmp_path / "theirs" / "checkpoint-3" / "trainer_state.json").read_text())["log_history"]
    logged = [record for record in records if record["event"] == "step"]
    for record, entry in zip(logged, [entry for entry in theirs if "loss" in entry], strict=True):
        for key in ("loss", "grad_norm", "learning_rate", "epoch"):
            assert record[key] == pytest.approx(float(entry[key]), rel=1e-3, abs=1e-12), key
        assert record["num_tokens"] == entry["num_tokens"] > 0
        assert record["step"] == entry["step"]
    (evaluation,) = [record for record in records if record["event"] == "eval"]
    told = next(entry for entry in theirs if "eval_loss" in entry)
    assert (evaluation["step"], evaluation["split"]) == (3, "validation")
    assert evaluation["loss"] == pytest.approx(float(told["eval_loss"]), rel=1e-3)
    assert not [key for key in evaluation if key.startswith("eval_") or key.endswith(("runtime", "per_second"))]
    assert [record["step"] for record in records if record["event"] == "checkpoint"] == [3]
    first = records[0]
    assert (first["method"], first["model"], first["total_steps"]) == ("lora", str(tiny_folder), 3)
    assert first["seed"] == config.seed
    made = compare([tmp_path / "ours"], tmp_path / "page")
    assert made.page.is_file()
    assert made.curves is not None


def test_plain_trainer(tmp_path: Path, tiny_folder: Path) -> None:
    from transformers import AutoModelForCausalLM, Trainer, TrainingArguments

    from subspace.integrations.transformers_callback import UnifiedLogCallback

    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype="float32")
    rows = [{"input_ids": [1, 5, 6, 7], "labels": [1, 5, 6, 7]} for _ in range(8)]
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "theirs"),
        max_steps=2,
        logging_steps=1,
        report_to="none",
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
    )
    Trainer(model, arguments, train_dataset=rows, callbacks=[UnifiedLogCallback(tmp_path / "ours")]).train()
    check(tmp_path / "ours", steps=2)


def test_a_trainer_that_goes_on_goes_on_with_the_log_and_its_tokens(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Driven by hand: rates count the tokens since the record before, numbers may come as texts, others stay null."""
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from subspace.integrations.transformers_callback import UnifiedLogCallback

    added: list[int] = []
    monkeypatch.setattr("subspace.training.monitors.MachineMonitor.add_tokens", lambda self, n: added.append(n))
    arguments = TrainingArguments(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True)
    for step in (1, 2):
        callback, control = UnifiedLogCallback(tmp_path / "ours"), TrainerControl()
        state = TrainerState(global_step=step, max_steps=2, is_world_process_zero=True)
        callback.on_train_begin(arguments, state, control)
        callback.on_log(arguments, state, control, logs={"loss": "1.5", "grad_norm": float("nan"), "num_tokens": 10})
        callback.on_log(arguments, state, control, logs={"loss": 1.25, "num_tokens": 14})
        callback.on_train_end(arguments, state, control)
    assert added == [10, 4, 10, 4]
    records, notes = read_log(RunLayout(tmp_path / "ours").log)
    assert not notes
    assert [record["event"] for record in records] == ["run_start", "step", "step", "run_end"] * 2
    assert (records[1]["loss"], records[1]["grad_norm"], records[1]["nonfinite"]) == (1.5, None, ["grad_norm"])


def test_other_processes_write_nothing(tmp_path: Path) -> None:
    from transformers import TrainerControl, TrainerState, TrainingArguments

    from subspace.integrations.transformers_callback import UnifiedLogCallback

    callback, control = UnifiedLogCallback(tmp_path / "ours"), TrainerControl()
    arguments = TrainingArguments(output_dir=str(tmp_path / "theirs"), report_to="none", use_cpu=True)
    state = TrainerState(max_steps=1, is_world_process_zero=False)
    callback.on_train_begin(arguments, state, control)
    callback.on_log(arguments, state, control, logs={"loss": 1.0})
    callback.on_save(arguments, state, control)
    callback.on_train_end(arguments, state, control)
    assert not (tmp_path / "ours").exists()
