"""The `data` section of a recipe. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import Field

from subspace.config.base import Section, Synonym

__all__ = ["DataConfig"]


class DataConfig(Section):
    """Which rows, how they become text, and which tokens count."""

    synonyms: ClassVar[Mapping[str, Synonym]] = {
        "dataset": Synonym("source"),
        "dataset_name": Synonym("source"),
        "path": Synonym("source"),
        "train_file": Synonym("source"),
        "validation_file": Synonym("validation"),
        "cutoff_len": Synonym("max_length"),
        "max_seq_length": Synonym("max_length"),
        "sequence_len": Synonym("max_length"),
        "val_size": Synonym("validation_fraction"),
        "max_samples": Synonym("max_train_samples"),
        "train_on_prompt": Synonym("loss_on", {True: "all", False: "answer"}),
    }

    source: str = Field(min_length=1, max_length=4096)
    """A file, a `datasets` folder, a hub id, a name in `dataset_info`, or `builtin/<task>`."""
    format: Literal[
        "auto", "alpaca", "chat", "prompt_completion", "instruction", "text", "classification", "text_to_text"
    ] = "auto"
    """Shape of a row; `auto` reads it off the columns."""
    dataset_info: str | None = None
    """A LLaMA-Factory `dataset_info.json` in which `source` is looked up."""
    hub: Literal["huggingface", "modelscope"] = "huggingface"
    """Where a hub id is looked up."""
    subset: str | None = None
    """Configuration of a hub data set."""
    split: str = "train"
    """Split that is trained on."""
    validation: str | None = None
    """A file, or a split of `source`, that is evaluated on."""
    validation_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training rows held out where `validation` is not given."""
    tuning_fraction: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Share of the training rows that is evaluated on in place of the validation rows, which are then not looked at."""
    columns: dict[str, str] = Field(default_factory=dict)
    """Our field (prompt, query, response, system, history, messages, text, text_pair, label) to the file's column."""
    prompt_template: str | None = None
    """With format instruction: a text with {column} fields that is the prompt; the response column is the answer."""
    system: str | None = None
    """System turn put before every conversation that has none."""
    labels: tuple[str, ...] | None = None
    """Names of the classes in order; read off the training rows where absent."""
    max_length: int = Field(default=512, ge=8, le=1_048_576)
    """Tokens of a row at the most; longer rows lose the middle of their prompt, never its frame or the whole answer."""
    packing: bool = False
    """Put several rows into one sequence, each seeing only itself."""
    loss_on: Literal["answer", "all"] = "answer"
    """Which tokens count in the loss."""
    on_bad_row: Literal["stop", "skip"] = "stop"
    """What a row that cannot be used does; skipped rows are counted and reported."""
    on_overflow: Literal["truncate", "skip", "stop"] = "truncate"
    """What a row longer than `max_length` does."""
    max_train_samples: int | None = Field(default=None, ge=1)
    """Use only the first rows."""
    max_eval_samples: int | None = Field(default=None, ge=1)
    """Evaluate only the first rows."""
