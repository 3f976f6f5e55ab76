"""What subspaces do while a run trains: figures of every refresh, for the log.

For each weight with a new basis P' (old one P, gradient G, R = P'^T G):

    captured energy  |R|^2 / |G|^2
    overlap          |P'^T P|^2 / r: 1 if the subspace stayed, r/d if it was drawn anew
    largest angle    between the old and the new subspace, in degrees
    effective rank   exp of the entropy of R's squared singular values, normalised to 1

and for three weights (the first, the middle and the last projected one) the drift, 1 - overlap with the very first
basis, and the norm of the update, of a large weight from evenly spaced rows. Nothing is read back from the device
before `event`.

References: Roy and Vetterli 2007 (effective rank); Bjorck and Golub 1973 (angles between subspaces).
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from subspace.linalg.angles import effective_rank, overlap, principal_cosines
from subspace.linalg.norms import wide_norm
from subspace.optim.slots import Slot
from subspace.projection.projector import Projector

__all__ = ["Microscope", "Refreshed", "watched_names"]

_MOST_COPIED = 2**22
"""Numbers of a weight, for the norm of its update."""


@dataclass(frozen=True)
class Refreshed:
    """One refresh of one weight.

    Attributes:
        gradient: (.., m, n).
        before: The old bases; None at the first refresh.
        after: The new ones.
    """

    slot: Slot
    gradient: Tensor
    before: tuple[Tensor, ...] | None
    after: tuple[Tensor, ...]


def watched_names(names: Iterable[str]) -> tuple[str, ...]:
    """Return the first, the middle and the last of the names, each once.

    >>> watched_names(["a", "b", "c", "d"]), watched_names(["a"])
    (('a', 'c', 'd'), ('a',))
    """
    listed = list(names)
    places = sorted({0, len(listed) // 2, len(listed) - 1}) if listed else []
    return tuple(listed[place] for place in places)


class Microscope:
    """Collects the figures of a step.

    Attributes:
        first: The first basis of each watched weight, by name.
    """

    def __init__(self, watched: Iterable[str]) -> None:
        self.watched = frozenset(watched)
        self.first: dict[str, Tensor] = {}
        self._figures: dict[str, dict[str, Tensor]] = {}
        self._seconds = 0.0

    @torch.no_grad()
    def refreshed(self, event: Refreshed) -> None:
        """Look at a new basis."""
        slot, new = event.slot, event.after[0]
        geometry = slot.geometry
        assert geometry is not None
        projector = Projector.of(geometry.side, *event.after).to(event.gradient)
        low = projector.project(event.gradient).float()  # in the gradient's type: no wide copy of a large gradient
        gram = low.mT @ low if geometry.side == "right" else low @ low.mT
        sizes = [wide_norm(value) for value in (low, event.gradient)]
        figures = {
            "captured_energy": (sizes[0] / sizes[1].clamp(min=1e-30)).square(),
            "effective_rank": effective_rank(torch.linalg.eigvalsh(gram).clamp(min=0.0).sqrt()).mean(),
        }
        if event.before is not None:
            figures["overlap"] = overlap(event.before[0], new).mean()
            cosine = principal_cosines(event.before[0], new).amin()
            figures["largest_angle_degrees"] = torch.rad2deg(torch.acos(cosine.clamp(-1.0, 1.0)))
        if slot.name in self.watched:
            first = self.first.setdefault(slot.name, new.clone())
            figures["drift"] = (1.0 - overlap(first, new).mean()).clamp(min=0.0)
        self._figures[slot.name] = figures

    @contextmanager
    def timed(self) -> Iterator[None]:
        """Count the time of finding bases, as the host sees it."""
        start = time.perf_counter()
        yield
        self._seconds += time.perf_counter() - start

    @contextmanager
    def updating(self, slots: Iterable[Slot]) -> Iterator[None]:
        """Measure the update of watched weights whose basis is new."""
        looked_at = [slot for slot in slots if slot.name in self.watched and slot.name in self._figures]
        before = [_some_rows(slot) for slot in looked_at]
        yield
        for slot, old in zip(looked_at, before, strict=True):
            share = old.numel() / max(slot.parameter.numel(), 1)
            self._figures[slot.name]["update_norm"] = wide_norm(_some_rows(slot).sub_(old)) / math.sqrt(share or 1.0)

    def event(self) -> dict[str, Any] | None:
        """Return the figures since the last call as JSON values, means and weight by weight; None without a refresh."""
        if not self._figures:
            return None
        weights = {
            name: {key: round(float(value), 6) for key, value in figures.items()}
            for name, figures in self._figures.items()
        }
        keys = dict.fromkeys(key for figures in weights.values() for key in figures)
        means = {key: _mean(figures[key] for figures in weights.values() if key in figures) for key in keys}
        seconds = round(self._seconds, 6)
        self._figures, self._seconds = {}, 0.0
        return {
            "kind": "refresh",
            "num_weights": len(weights),
            **means,
            "weights": weights,
            "machine": {"refresh_seconds": seconds},
        }


def _some_rows(slot: Slot) -> Tensor:
    """Return a float32 copy of the weight, or of evenly spaced rows if it is large: a copy would cost much memory."""
    every = slice(None, None, -(-slot.parameter.numel() // _MOST_COPIED) or None)
    stored = getattr(slot.parameter, "stored", None)
    values: Tensor = slot.parameter.detach()[every] if stored is None else stored.read(rows=every)
    return values.to(torch.float32, copy=True)


def _mean(values: Iterable[float]) -> float:
    listed = [value for value in values if math.isfinite(value)]
    return round(sum(listed) / len(listed), 6) if listed else 0.0
