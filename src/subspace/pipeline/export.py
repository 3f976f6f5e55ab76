"""What leaves a run: an adapter folder, or a plain model folder with the tokenizer of its base, byte for byte."""

from __future__ import annotations

import contextlib
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import ConfigError, NotMergeableError, ResourceError
from subspace.methods.base import Method
from subspace.methods.registry import REGISTRY
from subspace.models.config import ModelConfig
from subspace.models.quiet import quiet
from subspace.pipeline.loaded import load_result, run_config_of
from subspace.pipeline.run_config import RunConfig
from subspace.runs.layout import RunLayout

if TYPE_CHECKING:
    from torch import nn

__all__ = ["export_result", "merge_run"]

_TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
)


def export_result(config: RunConfig, method: Method, model: nn.Module, tokenizer: Any, layout: RunLayout) -> None:
    """Write the result of a run into its folder: `adapter/`, or `model/` where the method trains plain weights."""
    target = layout.adapter if method.leaves_adapter() else layout.model
    shutil.rmtree(target, ignore_errors=True)  # what an interrupted attempt left; the run is not sealed yet
    with whole_folder(target) as folder, quiet(), _as_plain(config, model):
        method.export(model, folder)
        copy_tokenizer(config.model, tokenizer, folder)


def _as_plain(config: RunConfig, model: nn.Module) -> contextlib.AbstractContextManager[None]:
    """Give the model plain weights while it is written, where the run holds them as codes."""
    if config.model.trained_weights == "as_stored":
        return contextlib.nullcontext()
    from subspace.models.int8_modules import plain_weights

    return plain_weights(model)


def merge_run(run: Path, target: Path) -> Path:
    """Write a plain model folder whose weights hold what the run learned.

    Args:
        run: A finished run.
        target: A folder that does not exist or is empty.

    Raises:
        NotMergeableError: E-CKP-008 for methods that leave nothing to fold.
        ConfigError: E-CFG-023 if `target` holds something.
    """
    config = run_config_of(run)
    card = REGISTRY.load(config.method.name).card
    if not card.mergeable:
        raise NotMergeableError(
            "E-CKP-008",
            where=str(run),
            found=f"method {card.name} has no weights to fold",
            action=f"Use the adapter folder as it is: {RunLayout(run).adapter}.",
        )
    loaded = load_result(str(run), quantization="none")
    with whole_folder(target) as folder, quiet():
        model: Any = loaded.model
        if RunLayout(run).adapter.is_dir():
            from subspace.adapters.peft_bridge import merge_adapter

            model = merge_adapter(model)
        model.save_pretrained(folder, safe_serialization=True)
        copy_tokenizer(config.model, loaded.tokenizer, folder)
    return target


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Give a new folder that appears under the name `target` only when all is written.

    Raises:
        ConfigError: E-CFG-023 if `target` exists and is not an empty folder.
        ResourceError: E-RES-002 if it cannot be written.
    """
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise ConfigError(
            "E-CFG-023",
            where=str(target),
            found="something is there already",
            expected="a new or empty folder",
            action="Give another folder; nothing is overwritten.",
        )
    hidden = target.parent / f".tmp-{target.name}-{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        hidden.mkdir(parents=True)
        yield hidden
        for path in hidden.rglob("*"):  # safetensors writes 0600 whatever the umask, which made the folder
            if path.is_file():
                path.chmod(hidden.stat().st_mode & 0o666)
        if target.is_dir():
            target.rmdir()
        hidden.rename(target)
    except OSError as error:
        raise ResourceError(
            "E-RES-002",
            where=str(target),
            found=f"cannot be written ({error.strerror})",
            action="Free space or give another folder.",
        ) from error
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def copy_tokenizer(config: ModelConfig, tokenizer: Any, folder: Path) -> None:
    """Put the base's tokenizer files into `folder` as they are, or save the tokenizer where there are none.

    A chat template that the recipe chose replaces the base's.
    """
    from subspace.models.load import fetch, resolve

    origin = fetch(resolve(config))
    files = [origin / name for name in _TOKENIZER_FILES if (origin / name).is_file()]
    if not files or config.chat_template is not None:
        tokenizer.save_pretrained(folder)
        return
    for file in files:
        shutil.copyfile(file, folder / file.name)
