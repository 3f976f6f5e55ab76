"""What one micro-batch computes and holds, measured on the graph of the model itself without any weights.

The model stands on the meta device, with the method's arithmetic put in by `Method.trace`. Its tensors are replaced by
fake ones that claim to lie on a CPU: the same kernels, mixed-precision casts and attention paths are chosen as in a
real run, so the counts are exact for every architecture that runs at all, and nothing is allocated. On a GPU the
kernels of dropout and attention keep a little less; the plan says so.

References: torch.utils.flop_counter (formulas); Chen et al. 2016, arXiv 1604.06174 (recomputation).
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from subspace.core.errors import ConfigError
from subspace.plan.meter import Meter
from subspace.plan.shapes import GraphCost

__all__ = ["GraphCost", "Loss", "measure", "model_loss"]

Loss = Callable[[nn.Module, Mapping[str, torch.Tensor]], torch.Tensor]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


def model_loss(model: nn.Module, inputs: Mapping[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss that a transformers model computes from `labels`, without filling a key-value cache."""
    plain = {"use_cache": False} if "use_cache" in signature(model.forward).parameters else {}
    loss: torch.Tensor = model(**inputs, **plain).loss
    return loss


def measure(
    model: nn.Module,
    *,
    task: str,
    batch_size: int,
    length: int,
    target_length: int | None = None,
    padded: bool | None = None,
    gradient_checkpointing: bool = False,
    mixed_precision: str = "no",
    loss: Loss = model_loss,
) -> GraphCost:
    """Return the cost of one micro-batch in which every row has its full length.

    Args:
        model: A transformers model on the meta device; its `requires_grad` flags say what is trained. It is given
            back as it was.
        task: `causal_lm`, `classification` or `seq2seq`.
        batch_size: Rows.
        length: Tokens of a row (of the encoder for `seq2seq`).
        target_length: Tokens of a target for `seq2seq`; absent: `length`.
        padded: Whether attention needs a mask, because rows differ in length or are packed; without one transformers
            takes a cheaper way through sdpa. Absent: where there is more than one row.
        gradient_checkpointing: Recompute every block in the backward pass (non-reentrant).
        mixed_precision: `no`, `bf16` or `fp16`: autocast around the loss.
        loss: Computes the scalar to differentiate from the model and a batch with `labels`.

    Raises:
        ConfigError: E-CFG-014 if the model cannot recompute.
    """
    target_length = target_length or length
    with _training(model), FakeTensorMode(), _fake_tensors(model):
        meter = Meter([*model.parameters(), *model.buffers()], _logits_shape(model, task, batch_size, target_length))
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(meter.keep_gradient)  # type: ignore[no-untyped-call]
        with _recomputing(model, meter, gradient_checkpointing), meter, saved_tensors_hooks(meter.pack, meter.unpack):
            inputs = _inputs(model, task, batch_size, length, target_length)
            with _autocast(mixed_precision), _mask_needed(batch_size > 1 if padded is None else padded):
                value = loss(model, inputs)
            meter.end_forward()
            if value.requires_grad:
                value.backward()  # type: ignore[no-untyped-call]
    return meter.cost()


def _autocast(mixed_precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=_AUTOCAST[mixed_precision]) if mixed_precision in _AUTOCAST else nullcontext()


def _logits_shape(model: nn.Module, task: str, batch_size: int, target_length: int) -> tuple[int, int]:
    """Return (rows, columns) of the logits; a shift of the labels may have cut the last position off."""
    config: Any = model.config
    if task == "classification":
        return batch_size, int(config.num_labels)
    return batch_size * (target_length - 1), int(config.get_text_config(decoder=True).vocab_size)


def _inputs(model: nn.Module, task: str, batch_size: int, length: int, target_length: int) -> dict[str, torch.Tensor]:
    """Return a full batch of token ids, mask and labels, each of shape (batch_size, length)."""

    def ids(*shape: int) -> torch.Tensor:
        return torch.ones(shape, dtype=torch.long)

    inputs = {"input_ids": ids(batch_size, length), "attention_mask": ids(batch_size, length)}
    accepted = signature(model.forward).parameters
    if task == "classification":
        if "token_type_ids" in accepted:
            inputs["token_type_ids"] = ids(batch_size, length)
        return inputs | {"labels": ids(batch_size)}
    return inputs | {"labels": ids(batch_size, target_length if task == "seq2seq" else length)}


@contextmanager
def _mask_needed(needed: bool) -> Iterator[None]:
    """Let transformers look at the mask, which it does not dare to do on fake tensors, unless one is needed anyway.

    It looks whether every token is there, and the meter answers that it is. A version of transformers that asks in
    another way builds the mask, and the plan errs on the side of more memory.
    """
    from transformers import masking_utils

    asks = getattr(masking_utils, "is_tracing", None)
    if needed or asks is None:
        yield
        return
    masking_utils.is_tracing = lambda *_: False
    try:
        yield
    finally:
        masking_utils.is_tracing = asks


@contextmanager
def _training(model: nn.Module) -> Iterator[None]:
    """Put the model in training mode, and back."""
    was_training = model.training
    model.train()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _fake_tensors(model: nn.Module) -> Iterator[None]:
    """Replace every tensor that the modules hold by a fake one on the CPU, ties kept, and put the old ones back."""
    fakes: dict[int, torch.Tensor] = {}
    replaced: list[tuple[dict[str, Any], str, torch.Tensor]] = []
    for module in model.modules():
        # Rotary embeddings keep a second copy of their frequencies as a plain attribute.
        holders: tuple[dict[str, Any], ...] = (module._parameters, module._buffers, vars(module))
        for holder in holders:
            for name, tensor in list(holder.items()):
                if isinstance(tensor, torch.Tensor):
                    fakes.setdefault(id(tensor), _fake(tensor))
                    replaced.append((holder, name, tensor))
                    holder[name] = fakes[id(tensor)]
    try:
        yield
    finally:
        for holder, name, tensor in replaced:
            holder[name] = tensor


def _fake(tensor: torch.Tensor) -> torch.Tensor:
    fake = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cpu")
    if not isinstance(tensor, nn.Parameter):
        return fake
    parameter = nn.Parameter(fake, tensor.requires_grad)
    if hasattr(tensor, "stored"):  # it stands for codes, a module of the model, which become fakes as well
        vars(parameter)["stored"] = tensor.stored
    return parameter


@contextmanager
def _recomputing(model: nn.Module, meter: Meter, wanted: bool) -> Iterator[None]:
    if not wanted:
        yield
        return
    live: Any = model
    if not getattr(live, "supports_gradient_checkpointing", False):
        raise ConfigError(
            "E-CFG-014",
            where="training.gradient_checkpointing",
            found=f"{type(live).__name__} cannot recompute its activations",
            action="Set it to false.",
        )
    settings = {"use_reentrant": False, "context_fn": lambda: (nullcontext(), meter.recomputing())}
    with warnings.catch_warnings():
        # transformers 5.23 renames the call; the old name is the one that every supported version has.
        warnings.simplefilter("ignore", FutureWarning)
        live.gradient_checkpointing_enable(settings)
        # it makes the embeddings' output require gradients; the real run does not, and backward ends above them
        live.disable_input_require_grads()
        try:
            yield
        finally:
            live.gradient_checkpointing_disable()
