"""Every method in methods/ is registered, has a case and a whole card, and needs no torch to be read."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import subprocess
import sys
from pathlib import Path

import pytest
from cases import CASES
from pydantic import ValidationError
from workbench import new_method

import subspace.methods
from subspace.config.base import Section
from subspace.methods.base import Method, MethodConfig
from subspace.methods.registry import REGISTRY
from subspace.optim.settings import ProjectionSettings

FOLDER = Path(subspace.methods.__file__).parent
REGISTERED = {REGISTRY.load(name) for name in REGISTRY.names()}
REFUSABLE = {
    "data.packing",
    "model.quantization",
    "model.trained_weights",
    "training.gradient_checkpointing",
    "training.loss_chunk_tokens",
    "training.mixed_precision",
    "training.optim",
    *(f"training.{key}" for key in ("gradient_accumulation_steps", "max_grad_norm", "max_bad_steps")),
    *(f"method.{field.name}" for field in dataclasses.fields(ProjectionSettings)),
}


def concrete_methods() -> set[type[Method]]:
    found = set()
    for path in FOLDER.glob("*.py"):
        module = importlib.import_module(f"subspace.methods.{path.stem}")
        found |= {
            value
            for value in vars(module).values()
            if inspect.isclass(value)
            and issubclass(value, Method)
            and hasattr(value, "card")
            and value.__module__ == module.__name__
        }
    return found


def test_no_method_is_an_orphan() -> None:
    assert concrete_methods() == REGISTERED
    assert set(CASES) == set(REGISTRY.names())


@pytest.mark.parametrize("name", REGISTRY.names())
def test_card_is_complete(name: str) -> None:
    method_class = REGISTRY.load(name)
    card = method_class.card
    assert card.name == name == method_class.config_class.model_fields["name"].default
    assert card.summary.endswith(".")
    assert card.low_rank.endswith(".")
    assert card.use_when.endswith(".")
    assert card.cost
    assert "\n" not in card.summary
    assert card.reference or card.family == "full"
    assert card.mergeable is (card.family != "prompt")
    for refusal in card.refuses:
        assert refusal.key in REFUSABLE
        assert refusal.values
        assert refusal.reason.endswith(".")
    assert inspect.getdoc(inspect.getmodule(method_class))


@pytest.mark.parametrize("name", REGISTRY.names())
def test_config_is_documented_and_strict(name: str) -> None:
    config_class: type[MethodConfig] = REGISTRY.load(name).config_class
    assert issubclass(config_class, Section)
    for key, field in config_class.model_fields.items():
        assert key == "name" or (field.description or "").endswith("."), key
    for synonym in config_class.synonyms.values():
        assert synonym.key in config_class.model_fields
    assert not set(config_class.synonyms) & set(config_class.model_fields)
    with pytest.raises(ValidationError):
        config_class(unheard_of=1)
    config = new_method(name).config
    restored = json.loads(json.dumps(config.model_dump(mode="json")))
    assert (
        config_class(**{key: tuple(value) if isinstance(value, list) else value for key, value in restored.items()})
        == config
    )


@pytest.mark.parametrize("key", ["r", "lora_r", "lora_rank", "lora_alpha", "lora_dropout", "lora_target"])
def test_what_everyone_types_is_understood(key: str) -> None:
    for name in ("lora", "dora", "pissa", "olora", "eva", "adalora"):
        assert key in REGISTRY.load(name).config_class.synonyms


def test_listing_needs_no_torch() -> None:
    code = (
        "import sys; from subspace.methods.registry import REGISTRY\n"
        "for name in REGISTRY.names(): REGISTRY.load(name).config_class()\n"
        "print([name for name in ('torch', 'peft', 'transformers', 'bitsandbytes') if name in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.py")), ids=lambda path: path.stem)
def test_method_files_are_short_and_light(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    shared = {"base", "projected", "projection_config"}  # what many methods rest on
    assert len(source.splitlines()) <= (300 if path.stem in shared else 200)
    for node in ast.parse(source).body:
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
        assert not any(name.partition(".")[0] in {"torch", "peft", "transformers"} for name in names)
