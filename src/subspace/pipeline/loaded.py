"""A model to ask: a finished run, a plain model folder, or a hub id."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.config.load import document_from, parse_section, read_document
from subspace.core.errors import CheckpointError
from subspace.models.config import ModelConfig
from subspace.pipeline.run_config import RunConfig, parse_run_config
from subspace.runs.discovery import is_lost, runs_below
from subspace.runs.layout import RunLayout
from subspace.runs.manifest import read_manifest, require_unchanged

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Loaded", "load_result", "run_config_of"]


@dataclass(frozen=True)
class Loaded:
    """A model ready to answer.

    Attributes:
        config: The recipe of the run it comes from; None for a plain model.
        format: Format of the run's training rows, which says how a prompt is laid out.
    """

    model: nn.Module
    tokenizer: Any
    model_config: ModelConfig
    labels: tuple[str, ...] | None
    device: str
    config: RunConfig | None = None
    format: str | None = None


def run_config_of(folder: Path) -> RunConfig:
    """Return the resolved recipe of a run folder.

    Raises:
        CheckpointError: E-CKP-001 if it is not a run folder; E-CKP-002, E-CKP-003 or E-CKP-007 if its manifest or its
            recipe is damaged, changed, or another version's.
    """
    layout = RunLayout(folder)
    require_unchanged(layout, read_manifest(folder), (layout.config,))
    config, _ = parse_run_config(read_document(layout.config))
    return config


def load_result(target: str, *, device: str = "cpu", quantization: str | None = None) -> Loaded:
    """Load what `target` names.

    Args:
        target: A finished run folder, a model folder, a hub id, or `builtin/...`.
        device: Torch device.
        quantization: How the base of a run is held, in place of what its recipe says.

    Raises:
        ConfigError: E-CFG-019 if there is no such device.
        CheckpointError: E-CKP-001 if the run has not finished, or the path leads nowhere; what loading raises.
    """
    from subspace.pipeline.build import find_device

    folder = Path(target)
    if is_lost(target):
        raise CheckpointError(
            "E-CKP-001", where=target, found="there is nothing at this path", action="Check the path."
        )
    if not os.path.exists(RunLayout(folder).manifest):
        with _no_run_either(target):
            return _load_plain(target, find_device(device, "--device"))
    if read_manifest(folder)["outcome"] != "finished":
        raise CheckpointError(
            "E-CKP-001", where=target, found="an unfinished run", action=f"Finish it with `subspace resume {target}`."
        )
    return _load_run(folder, find_device(device, "--device"), quantization)


@contextlib.contextmanager
def _no_run_either(target: str) -> Iterator[None]:
    """Where a hub has no such model, say so of the folder of runs that the name may have meant."""
    try:
        yield
    except CheckpointError as error:
        parent = Path(target).parent
        if error.code != "E-CKP-010" or os.path.exists(target) or parent == Path() or not runs_below(parent):
            raise
        action = f"{error.action} There is no such run in {parent}/ either.".strip()
        raise CheckpointError(
            error.code, where=error.where, found=error.found, expected=error.expected, action=action
        ) from error


def _load_plain(target: str, device: str) -> Loaded:
    from subspace.models.load import load_config, load_model, load_tokenizer

    config, _ = parse_section(document_from({"model_name_or_path": target}), None, ModelConfig)
    found = load_config(config)
    if any(name.endswith("ForSequenceClassification") for name in found.architectures or ()):
        config = config.model_copy(update={"task": "classification"})
    elif found.is_encoder_decoder:
        config = config.model_copy(update={"task": "seq2seq"})
    return Loaded(load_model(config, device=device).eval(), load_tokenizer(config), config, None, device)


def _load_run(folder: Path, device: str, quantization: str | None) -> Loaded:
    from subspace.adapters.peft_bridge import load_adapter
    from subspace.models.load import load_model, load_tokenizer

    config, layout, manifest = run_config_of(folder), RunLayout(folder), read_manifest(folder)
    _require_sound(config, layout, manifest)
    labels = manifest["facts"].get("labels")
    names = dict(enumerate(labels)) if labels else None
    model_config = config.model
    if layout.model.is_dir():
        plain = {"quantization": "none", "trained_weights": "as_stored"}
        model_config = model_config.model_copy(update={"local_path": str(layout.model), **plain})
    elif quantization is not None:
        model_config = model_config.model_copy(update={"quantization": quantization})
    model = load_model(model_config, num_labels=len(labels) if labels else None, id2label=names, device=device)
    if layout.adapter.is_dir():
        model = load_adapter(model, layout.adapter)
    tokenizer = load_tokenizer(config.model)
    known = tuple(labels) if labels else None
    return Loaded(model.eval(), tokenizer, model_config, known, device, config, manifest["facts"].get("format"))


def _require_sound(config: RunConfig, layout: RunLayout, manifest: dict[str, Any]) -> None:
    """Check the files of a result by their hashes, and that an adapter meets the base it was trained on.

    Raises:
        CheckpointError: E-CKP-002 or E-CKP-003 if a file is damaged; E-CKP-006 if the base model is another one now.
    """
    from subspace.models.load import fingerprint, resolve
    from subspace.models.weights import read_header

    results = (layout.adapter.name, layout.model.name)
    paths = [layout.folder / name for name in manifest["digests"] if name.partition("/")[0] in results]
    for path in paths:
        if path.suffix == ".safetensors" and path.exists():
            read_header(path)  # says what a file is, where the hash would only say that it is another one
    require_unchanged(layout, manifest, paths)
    trained_on = manifest["facts"].get("digests", {}).get("base_model")
    if layout.adapter.is_dir() and trained_on not in (None, base := fingerprint(resolve(config.model))):
        raise CheckpointError(
            "E-CKP-006",
            where=str(layout.adapter),
            found=f"trained on a base model with fingerprint {trained_on[:12]}; {config.model.model_name_or_path} has "
            f"{base[:12]} now",
            expected="the base model of the run",
            action="Bring back the weights that the run was trained on.",
        )
