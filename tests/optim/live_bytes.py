"""Counts the bytes of tensors that live while something runs."""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter


class LiveBytes(TorchDispatchMode):
    """Counts tensors made inside, and those given; others are there anyhow.

    Args:
        given: What lives before and may end inside.
    """

    def __init__(self, *given: Tensor) -> None:
        super().__init__()
        self._sizes: dict[int, int] = {}
        self._older: set[int] = set()
        self._now = 0
        for tensor in given:
            self._note(tensor.untyped_storage())
        self.before = self.peak = self._now

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for storage in self._storages((args, kwargs)):
            if storage._cdata not in self._sizes and storage._cdata not in self._older:
                self._older.add(storage._cdata)
                weakref.finalize(storage, self._older.discard, storage._cdata)  # its address may come again
        result = func(*args, **(kwargs or {}))
        for storage in self._storages(result):
            if storage._cdata not in self._sizes and storage._cdata not in self._older:
                self._note(storage)
        self.peak = max(self.peak, self._now)
        return result

    @staticmethod
    def _storages(values: Any) -> list[torch.UntypedStorage]:
        return [leaf.untyped_storage() for leaf in tree_iter(values) if isinstance(leaf, Tensor)]

    def _note(self, storage: torch.UntypedStorage) -> None:
        self._sizes[storage._cdata] = storage.nbytes()
        self._now += storage.nbytes()
        weakref.finalize(storage, self._forget, storage._cdata)

    def _forget(self, key: int) -> None:
        self._now -= self._sizes.pop(key, 0)
