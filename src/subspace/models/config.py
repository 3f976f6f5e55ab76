"""The `model` section of a recipe, and the source that it means. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import Field

from subspace.config.base import Section, Synonym

__all__ = ["ModelConfig", "ModelSource"]


class ModelConfig(Section):
    """Which base model, and how its weights are held."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        "base_model": Synonym("model_name_or_path"),
        "model": Synonym("model_name_or_path"),
        "name": Synonym("model_name_or_path"),
        "path": Synonym("model_name_or_path"),
        "template": Synonym("chat_template"),
        "torch_dtype": Synonym("dtype"),
        "load_in_4bit": Synonym("quantization", {True: "nf4", False: "none"}),
        "load_in_8bit": Synonym("quantization", {True: "int8", False: "none"}),
        "adapter": Synonym("adapter_name_or_path"),
    }

    model_name_or_path: str = Field(min_length=1, max_length=4096)
    """A folder, a hub id, or `builtin/tiny-llama`, the pretrained model that comes with subspace."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where a hub id is looked up."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    local_path: str | None = None
    """A local copy that is read instead of `model_name_or_path`, whose name the run keeps."""
    task: Literal["causal_lm", "classification", "seq2seq"] = "causal_lm"
    """The head that the model gets."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """How weights are held; `auto` is the type they were saved in."""
    quantization: Literal["none", "int8", "nf4"] = "none"
    """How the frozen linear weights are stored."""
    double_quantization: bool = True
    """With nf4: quantize the scales as well."""
    trained_weights: Literal["as_stored", "int8"] = "as_stored"
    """How the trained linear weights, embeddings and heads are held: in `dtype`, or as int8 codes that every step
    rounds stochastically."""
    attn_implementation: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """Which attention kernel is used."""
    chat_template: str | None = None
    """A named built-in chat template, or a Jinja file, instead of the tokenizer's own."""
    adapter_name_or_path: str | None = None
    """A trained PEFT adapter to continue from."""


@dataclass(frozen=True, slots=True)
class ModelSource:
    """A base model that has a name and, unless it lies on a hub, a folder.

    Attributes:
        kind: What the name stands for.
        name: What the recipe calls it; the run and its adapter keep this name.
        path: The folder; None for a hub id.
        hub: Where a hub id is looked up.
        revision: Branch, tag or commit on the hub.
    """

    kind: Literal["builtin", "folder", "hub"]
    name: str
    path: Path | None = None
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    revision: str | None = None
