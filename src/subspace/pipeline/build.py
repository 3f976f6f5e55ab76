"""The concrete parts of a run, made from its recipe: plan, data, model, optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.errors import ConfigError
from subspace.core.seeding import derive_seed, seed_everything
from subspace.methods.base import AttachContext, Method
from subspace.pipeline.run_config import RunConfig

if TYPE_CHECKING:
    from torch import Tensor, nn

    from subspace.data.prepare import Prepared
    from subspace.plan.plan import Plan

__all__ = [
    "RunData",
    "attach_method",
    "batch_reader",
    "find_device",
    "load_base",
    "load_data",
    "new_accelerator",
    "pick_device",
]


@dataclass(frozen=True)
class RunData:
    """Tokenizer and rows of a run."""

    tokenizer: Any
    train: Prepared
    validation: Prepared | None
    batch_size: int
    eval_batch_size: int
    seed: int

    @property
    def num_batches(self) -> int:
        num_batches: int = self._batch_plan().num_batches
        return num_batches

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know of the rows: skipped, cut, overlapping."""
        parts = (self.train, self.validation) if self.validation else (self.train,)
        return tuple(note for part in parts for note in part.report.notes())

    @property
    def labels(self) -> tuple[str, ...] | None:
        return self.train.labels

    @property
    def fingerprint(self) -> str:
        return self.train.fingerprint

    def batch(self, epoch: int, index: int) -> dict[str, Tensor]:
        """Return micro-batch `index` of pass `epoch`, collated."""
        from subspace.data.batches import collate

        chosen = self._batch_plan().batch(epoch, index)
        return collate([self.train.rows[row] for row in chosen], self.tokenizer.pad_token_id)

    def validation_batches(self) -> Iterator[dict[str, Tensor]]:
        """Return the validation rows in order, collated."""
        from subspace.data.batches import collate

        assert self.validation is not None
        rows = self.validation.rows
        for first in range(0, len(rows), self.eval_batch_size):
            chosen = [rows[row] for row in range(first, min(first + self.eval_batch_size, len(rows)))]
            yield collate(chosen, self.tokenizer.pad_token_id)

    def _batch_plan(self) -> Any:
        from subspace.data.batches import BatchPlan

        return BatchPlan(len(self.train.rows), self.batch_size, self.seed)


def load_data(config: RunConfig) -> RunData:
    """Read and encode training and validation rows.

    Raises:
        DataError: Any code of `data.prepare`; E-DAT-015 if a file changed while it was read.
    """
    from subspace.data.prepare import has_validation, prepare
    from subspace.models.load import load_tokenizer

    tokenizer = load_tokenizer(config.model)
    train = prepare(config.data, tokenizer, task=config.model.task, split="train")
    validation = None
    if has_validation(config.data):
        data = config.data if train.labels is None else config.data.model_copy(update={"labels": train.labels})
        validation = prepare(data, tokenizer, task=config.model.task, split="validation")
    for part in (train, validation):
        if part is not None:
            part.verify_files()
    training = config.training
    batch_sizes = training.per_device_train_batch_size, training.per_device_eval_batch_size
    return RunData(tokenizer, train, validation, *batch_sizes, training.seed)


def pick_device(config: RunConfig) -> str:
    """Return the torch device of a run.

    Raises:
        ConfigError: E-CFG-019 if it is asked for and not there; E-CFG-014 if it cannot do what the recipe asks.
    """
    device = find_device(config.training.device, "training.device")
    if device == "cpu" and config.training.mixed_precision == "fp16":
        raise ConfigError(
            "E-CFG-014", where="training.mixed_precision", found="fp16 on the CPU", action="Use bf16 or no."
        )
    return device


def find_device(wanted: str, where: str) -> str:
    """Return the torch device that `auto`, `cpu`, `mps`, `cuda` or `cuda:N` means here.

    Raises:
        ConfigError: E-CFG-019 if there is no such device.
    """
    import torch

    if wanted == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    kind, colon, index = wanted.partition(":")
    counts = {"cpu": 1, "mps": int(torch.backends.mps.is_available()), "cuda": torch.cuda.device_count()}
    if kind not in counts or (colon and not (kind == "cuda" and index.isdecimal())):
        found, action = f"unknown device {wanted!r}", "Use auto, cpu, mps, cuda or cuda:N."
    elif int(index or 0) >= counts[kind]:
        found, action = f"requested {wanted}, found {counts[kind]} {kind.upper()} devices", "Use device: auto."
    else:
        return wanted
    raise ConfigError("E-CFG-019", where=where, found=found, action=action)


def new_accelerator(config: RunConfig, device: str) -> Any:
    """Return an Accelerator for one process on `device`; its state is made anew for every run."""
    import torch
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState

    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=config.training.mixed_precision, cpu=device == "cpu")
    if device.startswith("cuda:"):
        torch.cuda.set_device(device)
        PartialState().device = torch.device(device)
    return accelerator


def load_base(config: RunConfig, labels: tuple[str, ...] | None, device: str) -> nn.Module:
    """Load the base model of a recipe; a new classification head depends on the seed alone."""
    from subspace.models.load import load_model

    seed_everything(derive_seed(config.training.seed, "head"))
    names = dict(enumerate(labels)) if labels else None
    num_labels = len(labels) if labels else None
    model: nn.Module = load_model(config.model, num_labels=num_labels, id2label=names, device=device)
    return model


def attach_method(
    config: RunConfig,
    method: Method,
    plan: Plan,
    model: nn.Module,
    *,
    total_steps: int,
    batches: Callable[[], Sequence[Mapping[str, Tensor]]] | None,
    restoring: bool,
) -> nn.Module:
    """Attach the method and switch on gradient checkpointing where the recipe wants it."""
    if config.training.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})  # type: ignore[operator]  # transformers' method
    seed = derive_seed(config.training.seed, "attach")
    seed_everything(seed)
    context = AttachContext(seed=seed, total_steps=total_steps, batches=batches, restoring=restoring)
    attached = method.attach(model, plan.placements, context)
    earlier = config.model.adapter_name_or_path
    if earlier is not None and not restoring:  # a checkpoint holds the values it has led to
        _continue_adapter(method, attached, Path(earlier).expanduser())
    return attached


def _continue_adapter(method: Method, model: nn.Module, folder: Path) -> None:
    """Give the new adapter the values of a trained one; its files are looked at before and after.

    Raises:
        CheckpointError: E-CKP-002 or E-CKP-004 if it is damaged; what `Method.continue_from` raises.
    """
    from subspace.models.weights import check_finite, read_header

    for path in sorted(folder.glob("*.safetensors")):
        read_header(path)
    method.continue_from(model, folder)
    check_finite(((name, value) for name, value in model.named_parameters() if value.requires_grad), str(folder))


def batch_reader(data: RunData, device: str) -> Callable[[], Sequence[Mapping[str, Tensor]]]:
    """Return a function that gives one pass of training batches, apart from the run's cursor."""
    return lambda: _Pass(data, device)


class _Pass(Sequence["Mapping[str, Tensor]"]):
    """The batches of the first pass, each collated when it is asked for."""

    def __init__(self, data: RunData, device: str) -> None:
        self._data, self._device = data, device

    def __len__(self) -> int:
        return self._data.num_batches

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return {name: value.to(self._device) for name, value in self._data.batch(0, index).items()}
