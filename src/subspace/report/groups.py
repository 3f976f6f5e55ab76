"""Which runs are the same but for their seed, what tells the others apart, and which colour each gets."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from subspace.report.fidelity import PAPER, joined, marked
from subspace.report.record import RunRecord

__all__ = ["DARK", "LIGHT", "Group", "group_runs"]

LIGHT = ("#0a63b0", "#cd7931", "#0b4a31", "#d6307c", "#8430ec", "#5a4a10")
"""Line colours on white: blue, amber, forest, raspberry, violet, umber.

Found by search: any two are at least 20 apart (CIE76) for full colour vision and for each kind of its deficiency
(Machado et al., 2009), and each at least 3.2 : 1 against the paper.
"""
DARK = ("#62aef7", "#e0814a", "#52eda8", "#f7a8d2", "#a67fbc", "#ecdc62")
"""The same hues on near-black; at least 18 apart and 4.9 : 1 against the paper."""

_INCIDENTAL = {("training", "seed"), ("training", "output_dir"), ("training", "report_to")}
_FIDELITY = ("method", "fidelity")


@dataclass(frozen=True)
class Group:
    """Runs that differ only by seed.

    Attributes:
        label: What tells them apart from the other groups.
        index: Place of the group; its colour is `LIGHT[index % 6]`.
        records: Its runs.
    """

    label: str
    index: int
    records: tuple[RunRecord, ...]

    @property
    def fidelity(self) -> str | None:
        """That of its runs; None where their method knows but one."""
        return joined(record.fidelity for record in self.records)


def group_runs(records: Sequence[RunRecord]) -> list[Group]:
    """Return the runs in groups, in order of first appearance; a run without a recipe is a group of its own."""
    members: dict[str, list[RunRecord]] = {}
    for record in records:
        settings = _settings(record.config)
        key = json.dumps(sorted(settings.items()), default=str) if settings else f"\0{record.folder}"
        members.setdefault(key, []).append(record)
    labels = _labels([runs[0] for runs in members.values()])
    return [
        Group(label, index, tuple(runs))
        for index, (label, runs) in enumerate(zip(labels, members.values(), strict=True))
    ]


def _labels(firsts: Sequence[RunRecord]) -> list[str]:
    """Name each by its method; by method and the one or two settings that differ; or else by its folder.

    A fidelity other than `paper` is told always, `paper` itself only beside a run of which it is not known.
    """
    labels = [_label(record, [other for other in firsts if other.method == record.method]) for record in firsts]
    return [_folder(record) for record in firsts] if len(set(labels)) < len(labels) else labels


def _label(record: RunRecord, rivals: Sequence[RunRecord]) -> str:
    """Return the label of one among all of its method, itself too."""
    if not record.method:
        return record.name
    method = marked(record.method, record.fidelity)
    if len(rivals) == 1:
        return method
    settings = [_settings(other.config) for other in rivals]
    mine = _settings(record.config)
    differing = sorted({key for other in settings for key in other | mine if other.get(key) != mine.get(key)})
    told = [key for key in differing if isinstance(mine.get(key), str | int | float)]
    absent = [key for key in differing if mine.get(key) is None]
    if not 1 <= len(differing) <= 2 or len(told) + len(absent) < len(differing):
        return _folder(record)
    if record.fidelity and (record.fidelity != PAPER or all(other.fidelity for other in rivals)):
        told = [key for key in told if key != _FIDELITY]  # `method` says it, by word or by silence
    return ", ".join([method, *(f"{key[-1]} {mine[key]}" for key in told)])


def _folder(record: RunRecord) -> str:
    return marked(record.name, record.fidelity)


def _settings(config: Mapping[str, Any], place: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found: dict[tuple[str, ...], Any] = {}
    for key, value in config.items():
        here = (*place, str(key))
        if isinstance(value, Mapping):
            found |= _settings(value, here)
        elif here not in _INCIDENTAL:
            found[here] = value
    return found
