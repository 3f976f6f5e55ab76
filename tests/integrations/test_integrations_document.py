"""docs/integrations.md and the example beside it are run as they stand."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from trainer_runs import QUIET

from subspace.integrations.transformers_optimizers import METHODS
from subspace.optim.riemannian import innermost

pytest.importorskip("trl")
pytestmark = QUIET

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "integrations.md").read_text(encoding="utf-8")


def test_the_snippets_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {}
    snippets = re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL)
    optimizers = []
    for snippet in snippets:
        exec(compile(snippet, "docs/integrations.md", "exec"), space)
        optimizers.append(type(innermost(space["trainer"].optimizer)).__name__ if "trainer" in space else "")
    assert list(dict.fromkeys(optimizers)) == ["", "ProjectedAdamW", "ResidualAdamW", "CurvatureClipped", "AdamW"]
    assert (tmp_path / "outputs" / "optimizer.safetensors").is_file()
    for name in ("galore", "fira", "fira-lora", "in-backward", "sophia", "stella"):
        assert (tmp_path / "outputs" / name / "checkpoint-4").is_dir()
    base = AutoModelForCausalLM.from_pretrained(space["folder"], dtype="float32")
    adapted = PeftModel.from_pretrained(base, tmp_path / "outputs" / "stella-lora")
    ids = torch.tensor([[1, 5, 6, 7]])
    torch.testing.assert_close(adapted(input_ids=ids).logits, space["model"].eval()(input_ids=ids).logits)


def test_every_method_is_named() -> None:
    for method in METHODS:
        assert f"`{method}`" in TEXT, method


def test_the_example_runs(tmp_path: Path) -> None:
    spec = importlib.util.spec_from_file_location("sft_trainer_example", ROOT / "examples" / "sft_trainer.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    losses = module.main(str(tmp_path), max_steps=3)
    assert set(losses) == {"galore", "stella"}
    assert all(0 < loss < 10 for loss in losses.values())
    assert (tmp_path / "stella-lora" / "adapter_model.safetensors").is_file()
