"""Runs whose trained weights are int8 codes: they learn, bytes are as planned, resume and export are exact."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from command_line import CommandLine, signal_at
from safetensors.torch import load_file

from subspace.config.load import document_from
from subspace.core.errors import ConfigError
from subspace.models.load import load_model
from subspace.models.quantized import weight_bytes
from subspace.pipeline.build import attach_method
from subspace.pipeline.planning import make_plan
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.training.state import load_trained

STEPS = 12
IDS = torch.arange(5, 25)[None]


def changes(folder: str, weights: str = "int8", **model: Any) -> dict[str, dict[str, Any]]:
    return {
        "model": {"trained_weights": weights, **model},
        "method": {"name": "full", "rank": None},
        "training": {
            "output_dir": folder,
            "max_steps": STEPS,
            "save_steps": 4,
            "gradient_accumulation_steps": 2,
            "gradient_checkpointing": True,
            "learning_rate": 2e-3,
        },
        "evaluation": {"metrics": ["loss"]},
    }


def recipe(line: CommandLine, folder: str, weights: str = "int8", **model: Any) -> Path:
    """Write a recipe of method full; the rank of the tiny recipe's adapter is none of its keys."""
    tree = changes(folder, weights, **model)
    path = line.recipe(tree, f"{folder}.yaml")
    text = "".join(row for row in path.read_text().splitlines(keepends=True) if not row.strip().startswith("rank:"))
    path.write_text(text)
    return path


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "unified_log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["event"] == "step"]


def planned(folder: Path) -> dict[str, Any]:
    plan: dict[str, Any] = json.loads((folder / "plan.json").read_text())
    return plan


def last_checkpoint(folder: Path) -> Path:
    return folder / "checkpoints" / f"step-{STEPS:08d}"


def state_bytes(folder: Path) -> int:
    return sum(value.nbytes for value in load_file(last_checkpoint(folder) / "optimizer.safetensors").values())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> CommandLine:
    return CommandLine(tmp_path_factory.mktemp("int8"))


@pytest.fixture(scope="module")
def run(line: CommandLine) -> Path:
    """A finished run; only to be looked at."""
    line("train", recipe(line, "whole"))
    return line.folder / "whole"


def restored(run: Path, line: CommandLine) -> Any:
    """Return the model with codes as the run left it, from its last checkpoint."""
    from contextlib import chdir

    from subspace.pipeline.loaded import run_config_of

    with chdir(line.folder):
        config = run_config_of(run)
        method = config.new_method()
        plan = make_plan(config, num_labels=None, total_steps=STEPS, method=method)
        model: Any = load_model(config.model)
        model = attach_method(config, method, plan, model, total_steps=STEPS, batches=None, restoring=True)
    load_trained(model, load_file(last_checkpoint(run) / "trained.safetensors"), str(run))
    return model.eval(), plan


def test_it_learns_as_with_plain_weights(run: Path, line: CommandLine) -> None:
    line("train", recipe(line, "plain", "as_stored"))
    coded, plain = losses(run), losses(line.folder / "plain")
    fallen = mean(plain[:2]) - mean(plain[-3:])
    assert fallen > 1.0
    assert mean(coded[:2]) - mean(coded[-3:]) > 0.9 * fallen


def test_a_stopped_run_ends_like_one_that_was_not(run: Path, line: CommandLine) -> None:
    with signal_at(6):
        assert line.end("train", recipe(line, "stopped")).status == 75
    stopped = line.folder / "stopped"
    line("resume", stopped)
    assert losses(stopped) == losses(run)
    for name in ("model/model.safetensors", "metrics.json", "predictions/validation.jsonl"):
        assert (stopped / name).read_bytes() == (run / name).read_bytes()


def test_a_checkpoint_holds_codes_and_scales(run: Path) -> None:
    tensors = load_file(last_checkpoint(run) / "trained.safetensors")
    weights = [name for name in tensors if name.endswith(".weight")]
    assert all("norm" in name for name in weights)
    codes = [name for name in tensors if name.endswith(".weight.codes")]
    assert len(codes) == 4 * 7 + 1  # linear layers of four blocks, and the embedding, which is the head as well
    assert {tensors[name].dtype for name in codes} == {torch.int8}
    assert {tensors[name.replace("codes", "scales")].dtype for name in codes} == {torch.bfloat16}


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing_enable:FutureWarning")
def test_the_result_is_a_plain_model_with_the_same_logits(run: Path, line: CommandLine) -> None:
    from transformers import AutoModelForCausalLM

    coded, plan = restored(run, line)
    plain = AutoModelForCausalLM.from_pretrained(run / "model")
    assert "stored" not in " ".join(plain.state_dict())
    with torch.no_grad():
        assert torch.allclose(plain(input_ids=IDS).logits, coded(input_ids=IDS).logits, atol=1e-5)

    stored = planned(run)
    assert state_bytes(run) == stored["optimizer_state_bytes"]
    assert weight_bytes(coded) == stored["weight_bytes"] == plan.weight_bytes
    assert stored["weight_bytes"] < 0.26 * weight_bytes(plain)
    assert stored["gradient_bytes"] == weight_bytes(plain)
    assert any("int8 codes" in note for note in stored["notes"])


@pytest.mark.parametrize("update", ["after_backward", "in_backward"])
def test_projected_gradients(update: str, line: CommandLine) -> None:
    given = ["method={name: galore, rank: 8, refresh_interval: 5, update: " + update + "}"]
    whole, stopped = line.folder / f"whole-{update}", line.folder / f"stopped-{update}"
    line("train", recipe(line, whole.name), *given)
    with signal_at(6):
        assert line.end("train", recipe(line, stopped.name), *given).status == 75
    line("resume", stopped)
    assert losses(stopped) == losses(whole)
    assert (stopped / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
    assert mean(losses(whole)[-3:]) < mean(losses(whole)[:2]) - 0.3
    assert state_bytes(whole) == planned(whole)["optimizer_state_bytes"]


def test_verbs(run: Path, line: CommandLine, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "loss" in line("evaluate", run).out
    answered = line("predict", run, "3 + 1 =", "--max-new-tokens", "4").out
    assert answered.strip()
    line("export", run, "exported")
    monkeypatch.setattr("sys.stdin", io.StringIO("hello\n/quit\n"))
    assert line("chat", run, "--max-new-tokens", "2").out.strip()
    assert (line.folder / "exported" / "model.safetensors").is_file()
    assert "int8 codes" in line("plan", line.folder / "whole.yaml").out


@pytest.mark.parametrize(("dtype", "mixed_precision"), [("bfloat16", "no"), ("float32", "bf16")])
def test_types(dtype: str, mixed_precision: str, line: CommandLine) -> None:
    name = f"{dtype}-{mixed_precision}"
    line("train", recipe(line, name, dtype=dtype), f"training.mixed_precision={mixed_precision}")
    found = losses(line.folder / name)
    assert mean(found[-3:]) < mean(found[:2]) - 0.9
    tensors = load_file(line.folder / name / "model" / "model.safetensors")
    assert {str(value.dtype) for value in tensors.values()} == {f"torch.{dtype}"}


def parsed(**sections: dict[str, Any]) -> RunConfig:
    tree: dict[str, Any] = {
        "model": {"model_name_or_path": "builtin/tiny-llama", "trained_weights": "int8"},
        "data": {"source": "builtin/word-problems"},
        "method": {"name": "full"},
        "training": {"max_steps": 1},
    }
    for key, values in sections.items():
        tree[key] = {**tree[key], **values}
    return parse_run_config(document_from(tree))[0]


@pytest.mark.parametrize(
    ("sections", "place", "said"),
    [
        ({"method": {"name": "lora"}}, "model.trained_weights", "lora, which trains no weight"),
        ({"method": {"name": "prefix"}}, "model.trained_weights", "prefix, which trains no weight"),
        (
            {"method": {"name": "galore", "target": "adapter"}},
            "model.trained_weights",
            "galore, which trains no weight",
        ),
        ({"model": {"quantization": "nf4"}}, "model.trained_weights", "nf4, which freezes"),
        ({"training": {"optim": "adamw_8bit"}}, "training.optim", "plain weights only"),
        ({"training": {"optim": "paged_adamw_8bit"}}, "training.optim", "plain weights only"),
    ],
)
def test_refusals(sections: dict[str, dict[str, Any]], place: str, said: str) -> None:
    with pytest.raises(ConfigError, match="E-CFG-014") as caught:
        parsed(**sections)
    assert place in caught.value.where
    assert said in str(caught.value)
    assert caught.value.action


def test_accepted() -> None:
    make: Callable[..., RunConfig] = parsed
    assert make().model.trained_weights == "int8"
    assert make(model={"trained_weights": "as_stored"}, method={"name": "lora"}).method.name == "lora"
