"""Counts what a pass over fake tensors would compute and hold: products, saved tensors, and everything alive.

The meter sits between autograd and the kernels. Each operation passes through it once, so it sees every storage come
into being and, through a weak reference, end. Nothing is allocated: the tensors are fake.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry

from subspace.plan.shapes import GraphCost

__all__ = ["Meter"]

Phase = Literal["forward", "backward", "recompute"]


def _grouped_mm_flop(left: torch.Tensor, right: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    """Count a product in which each group of rows (2-D) or each matrix (3-D) of one side meets one of the other."""
    rows_in_all = left.numel() // left.shape[0] if (left.dim(), right.dim()) == (3, 2) else left.numel()
    return 2 * rows_in_all * right.shape[-1]


def _attention_flop(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any) -> int:
    """Count the scores and their product with the values; keys may have fewer heads, which then serve several."""
    batch, heads, rows, width = query.shape
    return 2 * batch * heads * rows * key.shape[-2] * (width + value.shape[-1])


def _attention_backward_flop(
    grad: torch.Tensor, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *args: Any, **kwargs: Any
) -> int:
    """Count the scores once more, and the gradients of scores, values, queries and keys."""
    batch, heads, rows, width = query.shape
    return 2 * batch * heads * rows * key.shape[-2] * (3 * width + 2 * value.shape[-1])


_ATTENTION = ("flash_attention", "efficient_attention", "cudnn_attention", "flash_attention_for_cpu")
# torch has no formulas for experts, nor for attention on a CPU, which would be free; those for attention elsewhere
# refused fewer heads of keys than of queries until 2.13
_OWN: dict[Any, Callable[..., int]] = {
    torch.ops.aten._grouped_mm: _grouped_mm_flop,
    **{getattr(torch.ops.aten, f"_scaled_dot_product_{kind}"): _attention_flop for kind in _ATTENTION},
    **{
        getattr(torch.ops.aten, f"_scaled_dot_product_{kind}_backward"): _attention_backward_flop for kind in _ATTENTION
    },
}
_FORMULAS: dict[Any, Callable[..., int]] = {**flop_registry, **_OWN}


class _Saved:
    """Stands in autograd's graph for a tensor that it keeps; its end is the end of the saving."""

    __slots__ = ("_released", "tensor")

    def __init__(self, tensor: torch.Tensor, released: Callable[[], None]) -> None:
        self.tensor, self._released = tensor, released

    def __del__(self) -> None:
        self._released()


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch's class has no types
    """Meters one forward and one backward pass.

    Args:
        weights: Parameters and buffers; their storages are never counted.
        logits_shape: (least rows, columns) of the tensors that count as logits.

    Attributes:
        flops: Floating-point operations of matrix products by phase, 2 per multiply-add, attention not halved for
            causality.
        phase: What the next operation belongs to.
        saved_peak: Bytes of distinct storages kept for the backward pass, at their most.
        live_peak: Bytes alive at their most, gradients of parameters included.
        transient_peak: The same without gradients that have reached `.grad`.
        logits_peak: Bytes of tensors of the logits' shape, at their most.
    """

    def __init__(self, weights: Iterable[torch.Tensor], logits_shape: tuple[int, int]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.flops: Counter[Phase] = Counter()
        self.phase: Phase = "forward"
        self.saved_peak = self.live_peak = self.transient_peak = self.logits_peak = 0
        weights = tuple(weights)
        self._weights = {_key(tensor) for tensor in weights}
        self._shapes = {tensor.shape for tensor in weights if tensor.requires_grad}
        self._logits_shape = logits_shape
        self._live: dict[int, tuple[int, weakref.ref[torch.UntypedStorage]]] = {}
        self._saved: Counter[int] = Counter()
        self._recomputed: set[int] = set()
        self._gradients: set[int] = set()
        self._logits: set[int] = set()
        self._live_bytes = self._saved_bytes = self._recomputed_bytes = 0
        self._gradient_bytes = self._logits_bytes = 0

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # nothing is compiled here, and the guard that torch would wrap around every call is dear

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.ops.prim.device.default:
            return func(*args, **kwargs)  # half of all calls; makes no tensor
        if func is torch.ops.aten._local_scalar_dense.default:
            return _value_of_full_batch(args[0])
        if self.phase == "backward":
            self._sample_saved()
        self._sample_live()
        if func is torch.ops.aten.nonzero.default:
            # How many places are not zero depends on values; in a full batch all are.
            func, args, kwargs = torch.ops.aten.ones.default, ((args[0].numel(), args[0].dim()),), {"dtype": torch.long}
        result = func(*args, **kwargs)
        formula = _FORMULAS.get(func._overloadpacket)
        if formula is not None:
            self.flops[self.phase] += int(formula(*args, **kwargs, out_val=result))
        for leaf in tree_iter(result):
            if isinstance(leaf, torch.Tensor):
                self._note(leaf)
        if func is not torch.ops.aten.add.Tensor or self.phase == "forward" or result.shape not in self._shapes:
            self._sample_live()
        # else autograd adds up two gradients of a weight that is used twice: in place, but not for fake tensors, whose
        # first summand is gone before anything else happens
        return result

    def pack(self, tensor: torch.Tensor) -> torch.Tensor | _Saved:
        """Record that autograd keeps `tensor`; the first of a pair for `saved_tensors_hooks`."""
        key = _key(tensor)
        if key in self._weights:
            return tensor
        if not self._saved[key]:
            self._saved_bytes += tensor.untyped_storage().nbytes()
        self._saved[key] += 1
        size = tensor.untyped_storage().nbytes()
        return _Saved(tensor, lambda: self._release(key, size))

    @staticmethod
    def unpack(packed: torch.Tensor | _Saved) -> torch.Tensor:
        """Give back what `pack` was given."""
        return packed.tensor if isinstance(packed, _Saved) else packed

    @contextmanager
    def recomputing(self) -> Iterator[None]:
        """Mark what happens inside as the second run of a checkpointed block, whose new tensors are kept as saved."""
        before, self.phase = self.phase, "recompute"
        try:
            yield
        finally:
            self.phase = before

    def keep_gradient(self, parameter: torch.Tensor) -> None:
        """Take the gradient that has just reached `parameter` out of the transient bytes."""
        if parameter.grad is None:
            return
        key = _key(parameter.grad)
        if key in self._live and key not in self._gradients:
            self._gradients.add(key)
            self._gradient_bytes += self._live[key][0]

    def end_forward(self) -> None:
        """Pass from the forward to the backward phase."""
        self._sample_saved()
        self.phase = "backward"

    def cost(self) -> GraphCost:
        """Return what was metered."""
        self._sample_live()
        return GraphCost(
            forward_flops=self.flops["forward"],
            backward_flops=self.flops["backward"],
            recompute_flops=self.flops["recompute"],
            saved_activation_bytes=self.saved_peak,
            logits_bytes=self.logits_peak,
            transient_bytes=self.transient_peak,
            backward_peak_bytes=self.live_peak,
        )

    def _note(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._live or key in self._weights:
            return
        size = storage.nbytes()
        self._live[key] = size, weakref.ref(storage, lambda _: self._forget(key))
        self._live_bytes += size
        if self.phase == "recompute":
            self._recomputed.add(key)
            self._recomputed_bytes += size
        rows, columns = self._logits_shape
        if tensor.shape[-1:] == (columns,) and tensor.numel() >= rows * columns:
            self._logits.add(key)
            self._logits_bytes += size
            self.logits_peak = max(self.logits_peak, self._logits_bytes)

    def _sample_live(self) -> None:
        self.live_peak = max(self.live_peak, self._live_bytes)
        self.transient_peak = max(self.transient_peak, self._live_bytes - self._gradient_bytes)

    def _forget(self, key: int) -> None:
        size, _ = self._live.pop(key)
        self._live_bytes -= size
        if key in self._recomputed:
            self._recomputed.remove(key)
            self._recomputed_bytes -= size
        if key in self._gradients:
            self._gradients.remove(key)
            self._gradient_bytes -= size
        if key in self._logits:
            self._logits.remove(key)
            self._logits_bytes -= size

    def _release(self, key: int, size: int) -> None:
        self._saved[key] -= 1
        if not self._saved[key]:
            self._saved_bytes -= size

    def _sample_saved(self) -> None:
        self.saved_peak = max(self.saved_peak, self._saved_bytes + self._recomputed_bytes)


def _key(tensor: torch.Tensor) -> int:
    return int(tensor.untyped_storage()._cdata)


def _value_of_full_batch(tensor: torch.Tensor) -> bool | int | float:
    """Answer a model that asks for a value: every token is there, so every test on the mask holds."""
    if tensor.dtype == torch.bool:
        return True
    return 1.0 if tensor.is_floating_point() else 1
