"""What is compared with what: runs put into arms and fields.

A field is one training task: one model on one data source. Runs of different fields never meet. An arm is what the same
name stands for in every field: a method with its settings, over seeds.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from subspace.report.bench import Bench, Job
from subspace.report.fidelity import joined, marked
from subspace.report.groups import Group, group_runs
from subspace.report.record import RunRecord

__all__ = ["Arms", "Field", "arrange"]


@dataclass(frozen=True)
class Field:
    """Runs that can meet: one model, one data source.

    Attributes:
        name: What tells it apart from the other fields.
        task: The task as the bench names it; else the data source.
        model: Its model.
        groups: Its runs by arm.
    """

    name: str
    task: str
    model: str
    groups: tuple[Group, ...]

    @property
    def records(self) -> tuple[RunRecord, ...]:
        return tuple(record for group in self.groups for record in group.records)


@dataclass(frozen=True)
class Arms:
    """All runs in order.

    Attributes:
        groups: All arms, each with its runs of every field.
        fields: The same runs field by field; a group has the name and colour of its arm.
        seeds: Folder of a run to the seed that it counts as, where the bench says so.
        benches: The benches that were asked, with the labels that their arms have here.
    """

    groups: tuple[Group, ...]
    fields: tuple[Field, ...]
    seeds: Mapping[Path, int]
    benches: tuple[Bench, ...] = ()

    def seed_of(self, record: RunRecord) -> int | None:
        """Return the seed of a run; None if it is unknown."""
        return self.seeds.get(record.folder.resolve(), record.seed)


def arrange(records: Sequence[RunRecord], benches: Iterable[Bench] = ()) -> Arms:
    """Return runs in arms and fields: as a bench names them, else by what their recipes say."""
    known = {record.folder.resolve(): record for record in records}
    told = tuple(_with_fidelity(bench, known) for bench in benches)
    jobs = {job.run.resolve(): (job, bench) for bench in told for job in bench.jobs}
    places: dict[tuple[str, str], list[RunRecord]] = {}
    for record in records:
        job = jobs.get(record.folder.resolve())
        place = (job[0].task, job[0].model) if job else (record.data, record.model)
        places.setdefault(place, []).append(record)
    named = {place: _named(members, jobs) for place, members in places.items()}
    order = list(dict.fromkeys(label for groups in named.values() for label, _ in groups))
    index = {label: number for number, label in enumerate(order)}
    fields = tuple(
        Field(name, *place, tuple(Group(label, index[label], tuple(members)) for label, members in named[place]))
        for place, name in zip(named, _field_names(list(named)), strict=True)
    )
    found: dict[str, list[RunRecord]] = {label: [] for label in order}
    for field in fields:
        for group in field.groups:
            found[group.label] += group.records
    seeds = {folder: job.seed for folder, (job, _) in jobs.items() if job.seed is not None}
    groups = tuple(Group(label, index[label], tuple(found[label])) for label in order)
    return Arms(groups, fields, seeds, told)


def _with_fidelity(bench: Bench, known: Mapping[Path, RunRecord]) -> Bench:
    """Return the bench with the fidelity in the labels of arms that did not run the published method."""
    found: dict[str, list[str | None]] = {}
    for job in bench.jobs:
        record = known.get(job.run.resolve())
        found.setdefault(job.arm, []).append(record.fidelity if record else None)
    own = {arm: marked(bench.labels.get(arm, arm), joined(fidelities)) for arm, fidelities in found.items()}
    return replace(bench, labels={**bench.labels, **own})


def _named(members: Sequence[RunRecord], jobs: Mapping[Path, tuple[Job, Bench]]) -> list[tuple[str, list[RunRecord]]]:
    """Return the arms of one field: those of the bench, then those that recipes tell apart."""
    found: dict[str, list[RunRecord]] = {}
    free = []
    for record in members:
        pair = jobs.get(record.folder.resolve())
        if pair is None:
            free.append(record)
            continue
        arm = pair[0].arm
        found.setdefault(pair[1].labels.get(arm, arm), []).append(record)
    for group in group_runs(free) if free else []:
        label = group.label if group.label not in found else marked(group.records[0].name, group.fidelity)
        found.setdefault(label, []).extend(group.records)
    return list(found.items())


def _field_names(places: Sequence[tuple[str, str]]) -> list[str]:
    """Name each by its data; by data and model where data repeat."""
    tasks = _short([task for task, _ in places])
    models = _short([model for _, model in places])
    names = []
    for task, model, shown in zip(tasks, models, places, strict=True):
        repeated = sum(other[0] == shown[0] for other in places) > 1
        names.append(", ".join(part for part in (task, model if repeated else "") if part) or model or "–")
    return names


def _short(names: Sequence[str]) -> list[str]:
    """Return the last part of each path, or the whole where two would be the same."""
    ends = [name.rstrip("/").rpartition("/")[2] or name for name in names]
    return [
        end if len({name for name, other in zip(names, ends, strict=True) if other == end}) == 1 else whole
        for end, whole in zip(ends, names, strict=True)
    ]
