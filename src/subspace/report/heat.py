"""Captured energy weight by weight: a map with a column for each layer and a row for each kind of module."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from subspace.report.groups import Group
from subspace.report.refreshes import captured_by_weight

__all__ = ["NUMBERS_UP_TO", "EnergyMap", "energy_maps", "energy_range", "module_place"]

NUMBERS_UP_TO = 8
"""With more layers cells hold no numbers."""
_ENDINGS = frozenset({"weight", "default"})


@dataclass(frozen=True)
class EnergyMap:
    """The map of one group of runs.

    Attributes:
        group: Whose.
        layers: Its layers, in order; empty if no weight lies in a layer.
        kinds: Its kinds of modules, in order.
        cells: (kind, layer) to captured energy, the mean over refreshes and runs; layer None: outside the layers.
        mean: Over all weights.
    """

    group: Group
    layers: tuple[int, ...]
    kinds: tuple[str, ...]
    cells: Mapping[tuple[str, int | None], float]
    mean: float


def energy_maps(groups: Sequence[Group]) -> list[EnergyMap]:
    """Return a map for every group that has logged captured energy weight by weight."""
    found = []
    for group in groups:
        values: dict[str, list[float]] = {}
        for record in group.records:
            for name, value in captured_by_weight(record.refreshes).items():
                values.setdefault(name, []).append(value)
        if values:
            found.append((group, values))
    names = _short_names(module_place(name)[0] for _, values in found for name in values)
    return [_map(group, values, names) for group, values in found]


def _map(group: Group, values: Mapping[str, Sequence[float]], names: Mapping[tuple[str, ...], str]) -> EnergyMap:
    cells: dict[tuple[str, int | None], list[float]] = {}
    for name, listed in values.items():
        path, layer = module_place(name)
        cells.setdefault((names[path], layer), []).extend(listed)
    kinds = {kind for kind, _ in cells}
    everything = [value for listed in values.values() for value in listed]
    return EnergyMap(
        group,
        tuple(sorted({layer for _, layer in cells if layer is not None})),
        tuple(kind for kind in dict.fromkeys(names.values()) if kind in kinds),
        {place: sum(listed) / len(listed) for place, listed in cells.items()},
        sum(everything) / len(everything),
    )


def energy_range(maps: Iterable[EnergyMap]) -> tuple[float, float]:
    """Return the lowest and the highest cell of all maps."""
    values = [value for found in maps for value in found.cells.values()]
    return min(values), max(values)


def module_place(weight: str) -> tuple[tuple[str, ...], int | None]:
    """Return the kind of a weight, as the parts of its name without its layer, and that layer; experts are one kind.

    >>> module_place("model.layers.3.self_attn.q_proj.weight")
    (('model', 'layers', 'self_attn', 'q_proj'), 3)
    >>> module_place("lm_head.weight")
    (('lm_head',), None)
    """
    parts = weight.split(".")
    while len(parts) > 1 and parts[-1] in _ENDINGS:
        parts.pop()
    numbered = [place for place, part in enumerate(parts) if part.isdecimal() and part.isascii() and len(part) < 6]
    layer = int(parts[numbered[0]]) if numbered else None
    kind = tuple("*" if place in numbered else part for place, part in enumerate(parts) if place not in numbered[:1])
    return kind or (weight,), layer


def _short_names(paths: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], str]:
    """Return for each path the shortest end of it that no other path has."""
    distinct = list(dict.fromkeys(paths))
    names = {path: path[-1] for path in distinct}
    for length in range(2, max((len(path) for path in distinct), default=0) + 1):
        told = list(names.values())
        shared = {name for name in told if told.count(name) > 1}
        names = {path: ".".join(path[-length:]) if name in shared else name for path, name in names.items()}
    return names
