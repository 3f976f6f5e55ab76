"""Linear layers, embeddings and heads whose trained weights are int8 codes.

    y = x (s q)^T + b        the weight is made for each call, in the type of the arithmetic, and dropped after it
    dx = dy (s q),  dW = dy^T x        made again for the backward pass; dW goes to the handle, as if it were the weight

A module keeps its name, its place and its hooks: its `weight` becomes a `WeightHandle`, and `stored` beside it holds
codes and scales. Tied modules share both.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from subspace.models.int8_weights import Int8Weight, WeightHandle, dequantized, num_groups
from subspace.plan.shapes import TensorSpec

__all__ = [
    "Int8Conv1D",
    "Int8Embedding",
    "Int8Linear",
    "int8_modules",
    "int8_notes",
    "int8_tensors",
    "plain_weights",
    "store_int8",
    "unpacked_weight",
]


def int8_tensors(weight: TensorSpec) -> tuple[TensorSpec, ...]:
    """Return the tensors that hold one weight: codes, scales, and the single element behind its handle.

    Formula: m n + 2 m ceil(n / 256) + one element (bytes), for a weight stored (m, n).

    >>> sum(t.num_bytes for t in int8_tensors(TensorSpec("w", (64, 512), "bfloat16")))
    33026
    """
    rows, columns = weight.shape
    return (
        TensorSpec(weight.name, (), weight.dtype),
        TensorSpec(f"{weight.name}.codes", weight.shape, "int8"),
        TensorSpec(f"{weight.name}.scales", (rows, num_groups(columns)), "bfloat16"),
    )


def int8_modules(model: nn.Module) -> tuple[str, ...]:
    """Return the modules whose weights are held as codes, in the model's order.

    These are the linear layers inside the blocks, the embedding of the tokens and the head that gives their logits,
    and what is tied to one of them. Reads names, types and identities alone, so a model on the meta device will do.
    """
    live: Any = model
    wanted = {id(live.get_input_embeddings()), id(live.get_output_embeddings())}
    blocks = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    chosen = set()
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None:
            continue
        owners.setdefault(id(weight), []).append((name, module))
        if id(module) in wanted or (name.startswith(blocks) and not isinstance(module, nn.Embedding)):
            chosen.add(id(weight))
    fitting = {key for key in chosen if all(_holdable(module) for _, module in owners[key])}
    return tuple(name for name, module in model.named_modules() if id(module._parameters.get("weight")) in fitting)


def store_int8(model: nn.Module) -> tuple[str, ...]:
    """Turn the weights of `int8_modules` into codes, in place, rounded to nearest; return the modules' names.

    One weight at a time, so that no two copies of the model exist.
    """
    names = int8_modules(model)
    sharing: dict[int, list[nn.Module]] = {}
    for name in names:
        module = model.get_submodule(name)
        sharing.setdefault(id(module._parameters["weight"]), []).append(module)
    for modules in sharing.values():
        weight: Any = modules[0].weight
        stored = Int8Weight.nearest(weight.detach())
        handle = WeightHandle(weight.shape, weight.dtype, stored, weight.requires_grad)
        for module in modules:
            _hold(module, stored, handle)
    return names


def int8_notes(model: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """Return what a reader of the plan should know, `names` being the modules held as codes."""
    held = {id(model.get_submodule(name)._parameters["weight"]) for name in names}
    left = [p for p in model.parameters() if p.ndim > 1 and id(p) not in held]
    notes = ["Trained weights are int8 codes; an operation unpacks the weight that it needs, which the passes count."]
    if left:
        count = sum(parameter.numel() for parameter in left)
        notes.append(f"{len(left)} matrices ({count:,} numbers) are not held as int8 and keep their type.")
    return tuple(notes)


def unpacked_weight(module: nn.Module, dtype: torch.dtype | None = None) -> Tensor:
    """Return the weight that `module` acts with, detached, in its own or the given type, whether held as codes or not.

    For code that multiplies with the weight of a module by itself; its gradient goes to `module.weight`.
    """
    weight: Any = module.weight
    stored = getattr(weight, "stored", None)
    if stored is None:
        plain: Tensor = weight.detach().to(dtype or weight.dtype)
        return plain
    unpacked: Tensor = stored.read(dtype=dtype or weight.dtype)
    return unpacked


@contextmanager
def plain_weights(model: nn.Module) -> Iterator[None]:
    """Give the model plain weights on the CPU in place of its codes, to be saved; then the codes are put back."""
    codes: list[tuple[_Stored, nn.Parameter, Int8Weight]] = []
    plain: dict[int, nn.Parameter] = {}
    try:
        for module in model.modules():
            if isinstance(module, _Stored):
                handle, stored = module._parameters["weight"], module.stored
                assert handle is not None
                if id(handle) not in plain:
                    value = stored.read(dtype=handle.dtype).cpu()
                    plain[id(handle)] = nn.Parameter(value, requires_grad=False)
                codes.append((module, handle, stored))
                module._parameters["weight"] = plain[id(handle)]
                del module._modules["stored"]
                module.__class__ = module.plain_class  # type: ignore[assignment]
        yield
    finally:
        for module, handle, stored in codes:
            _hold(module, stored, handle)


class _Stored(nn.Module):
    """What the three kinds of module have in common: the handle is no tensor to be moved, saved or loaded."""

    plain_class: ClassVar[type[nn.Module]]
    stored: Int8Weight

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        with self._without_handle() as handle:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
            handle.convert(fn)
        return self

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        with self._without_handle():
            super()._save_to_state_dict(destination, prefix, keep_vars)

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        with self._without_handle():
            super()._load_from_state_dict(*args, **kwargs)

    @contextmanager
    def _without_handle(self) -> Iterator[WeightHandle]:
        handle: Any = self._parameters["weight"]
        self._parameters["weight"] = None  # keeps its place, on which the order of an optimizer's parameters depends
        try:
            yield handle
        finally:
            self._parameters["weight"] = handle

    def _product(self, x: Tensor, transposed: bool) -> Tensor:
        handle: Any = self.weight
        dtype, device = handle.dtype, x.device.type
        if torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device):
            dtype = torch.get_autocast_dtype(device)
            x = x.to(dtype)
        options = _Options(dtype, transposed)
        stored = self.stored
        result: Tensor = _Product.apply(x, handle, self.bias, stored.codes, stored.scales, options)  # type: ignore[no-untyped-call]
        return result


class Int8Linear(_Stored, nn.Linear):
    """`nn.Linear` with codes."""

    plain_class = nn.Linear

    def forward(self, input: Tensor) -> Tensor:
        return self._product(input, transposed=False)


class Int8Conv1D(_Stored, Conv1D):  # type: ignore[misc]  # transformers has no types
    """`transformers.pytorch_utils.Conv1D` (GPT-2) with codes; its weight is (n, m)."""

    plain_class = Conv1D

    def forward(self, x: Tensor) -> Tensor:
        return self._product(x, transposed=True)


class Int8Embedding(_Stored, nn.Embedding):
    """`nn.Embedding` with codes; only the rows that are looked up are unpacked."""

    plain_class = nn.Embedding

    def forward(self, input: Tensor) -> Tensor:
        padding = -1 if self.padding_idx is None else self.padding_idx
        stored = self.stored
        result: Tensor = _Lookup.apply(self.weight, input, stored.codes, stored.scales, padding)  # type: ignore[no-untyped-call]
        return result


_CODED: Mapping[type[nn.Module], type[_Stored]] = {
    nn.Linear: Int8Linear,
    nn.Embedding: Int8Embedding,
    Conv1D: Int8Conv1D,
}


@functools.cache
def _coded_class(plain: type[nn.Module]) -> type[_Stored] | None:
    """Return the class that does with codes what `plain` does with a weight; None if there is none.

    A class of embeddings that works on what `nn.Embedding` returns (Gemma's scaling) gets one of its own, in which
    `super().forward` is that of `Int8Embedding`. Were the handle read all the same, the result would be NaN.
    """
    if plain in _CODED:
        return _CODED[plain]
    if plain.__bases__ == (nn.Embedding,) and {"super", "forward"} <= set(plain.forward.__code__.co_names):
        return type(f"Int8{plain.__name__}", (plain, Int8Embedding), {"plain_class": plain})
    return None


def _holdable(module: nn.Module) -> bool:
    if isinstance(module, nn.Embedding) and (module.max_norm or module.sparse or module.scale_grad_by_freq):
        return False
    return _coded_class(type(module)) is not None  # type: ignore[arg-type]  # mypy: no metaclass's hash


def _hold(module: nn.Module, stored: Int8Weight, handle: nn.Parameter) -> None:
    coded = None if isinstance(module, _Stored) else _coded_class(type(module))  # type: ignore[arg-type]
    if coded is not None:
        module.__class__ = coded
    module._parameters["weight"] = handle
    module.add_module("stored", stored)


class _Options(NamedTuple):
    dtype: torch.dtype
    transposed: bool


class _Product(torch.autograd.Function):
    """x W^T + b, or x W + b for a transposed W; keeps x and the codes."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, handle: Tensor, bias: Tensor | None, codes: Tensor, scales: Tensor, options: _Options
    ) -> Tensor:
        needs_x, needs_weight, *_ = ctx.needs_input_grad
        ctx.save_for_backward(x if needs_weight else None, *((codes, scales) if needs_x else (None, None)))
        ctx.options = options
        weight = dequantized(codes, scales, options.dtype)
        return functional.linear(x, weight.t() if options.transposed else weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, codes, scales = ctx.saved_tensors
        flat = gradient.reshape(-1, gradient.shape[-1])
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            weight = dequantized(codes, scales, ctx.options.dtype)
            of_x = gradient @ (weight.t() if ctx.options.transposed else weight)
            del weight  # before there is a gradient of its size
        if ctx.needs_input_grad[1]:
            inputs = x.reshape(-1, x.shape[-1])
            of_weight = inputs.t() @ flat if ctx.options.transposed else flat.t() @ inputs
        if ctx.needs_input_grad[2]:
            of_bias = flat.sum(0)
        return of_x, of_weight, of_bias, None, None, None


class _Lookup(torch.autograd.Function):
    """Rows of W by number; keeps the numbers."""

    @staticmethod
    def forward(ctx: Any, handle: Tensor, numbers: Tensor, codes: Tensor, scales: Tensor, padding: int) -> Tensor:
        ctx.save_for_backward(numbers)
        ctx.padding, ctx.num_rows = padding, codes.shape[0]
        flat = numbers.reshape(-1)
        rows = dequantized(codes.index_select(0, flat), scales.index_select(0, flat), handle.dtype)
        return rows.view(*numbers.shape, codes.shape[1])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (numbers,) = ctx.saved_tensors
        backward = torch.ops.aten.embedding_dense_backward
        return backward(gradient, numbers, ctx.num_rows, ctx.padding, False), None, None, None, None
