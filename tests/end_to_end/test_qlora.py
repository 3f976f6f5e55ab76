"""LoRA on int8 and nf4 bases, on the CPU: it learns, bytes are as planned, resume and export are exact."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from subspace.config.load import document_from
from subspace.core.errors import StoppedError
from subspace.pipeline.execute import train
from subspace.pipeline.export import merge_run
from subspace.pipeline.loaded import load_result
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.training.hooks import Listener

bitsandbytes = pytest.importorskip("bitsandbytes")

STEPS = 20


def recipe(folder: Path, quantization: str) -> RunConfig:
    tree = {
        "model": {"model_name_or_path": "builtin/tiny-llama", "quantization": quantization},
        "data": {"source": "builtin/word-problems", "max_length": 64, "max_train_samples": 128, "max_eval_samples": 4},
        "method": {"name": "lora", "rank": 4, "alpha": 8.0, "target_modules": "all-linear", "dropout": 0.1},
        "training": {
            "output_dir": str(folder),
            "max_steps": STEPS,
            "per_device_train_batch_size": 8,
            "learning_rate": 5e-3,
            "save_steps": 8,
        },
        "evaluation": {"metrics": ["loss"]},
    }
    return parse_run_config(document_from(tree))[0]


class StopAt(Listener):
    """Ends the run as a scheduler would, with SIGTERM."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step(self, step: int, loss: float) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)


def losses(folder: Path) -> list[float]:
    records = map(json.loads, (folder / "unified_log.jsonl").read_text().splitlines())
    return [record["loss"] for record in records if record["event"] == "step"]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=torch.arange(5, 25)[None]).logits.float()


@pytest.mark.parametrize("quantization", ["int8", "nf4"])
def test_learns_resumes_and_exports(quantization: str, tmp_path: Path) -> None:
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    result = train(recipe(whole, quantization))
    found = losses(whole)
    assert sum(found[-3:]) / 3 < 0.75 * sum(found[:3]) / 3

    with pytest.raises(StoppedError):
        train(recipe(stopped, quantization), listeners=(StopAt(11),))
    train(recipe(stopped, quantization), resume=True)
    adapter = Path("adapter") / "adapter_model.safetensors"
    assert (whole / adapter).read_bytes() == (stopped / adapter).read_bytes()
    assert losses(stopped) == found

    plan = json.loads((whole / "plan.json").read_text())
    live = load_result(str(whole))
    from subspace.models.quantized import weight_bytes

    kind = {"nf4": bitsandbytes.nn.Linear4bit, "int8": bitsandbytes.nn.Linear8bitLt}[quantization]
    stored = [module for module in live.model.modules() if isinstance(module, kind)]
    assert len(stored) == 4 * 7
    if quantization == "nf4":
        assert {module.weight.quant_state.quant_type for module in stored} == {"nf4"}
        assert not any(module.support_avx512bf16_for_cpu for module in stored)  # would repack the codes on the way
    adapters = sum(value.numel() * 4 for name, value in live.model.named_parameters() if "lora_" in name)
    assert weight_bytes(live.model) == plan["weight_bytes"]
    assert adapters == plan["gradient_bytes"]
    assert result.summary["trained_parameters"] * 4 == adapters

    # onto the unquantized base: the exported weights are the adapter's function there
    on_plain = load_result(str(whole), quantization="none")
    before = logits(on_plain.model)
    merged = load_result(str(merge_run(whole, tmp_path / "merged")))
    assert torch.allclose(logits(merged.model), before, atol=1e-4)
