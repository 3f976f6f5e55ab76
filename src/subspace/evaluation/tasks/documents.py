"""The documents of a task and the shots that go before each: read from a local file, a folder, or the hub.

In a folder a split is the files named after it: `test.jsonl.gz`, `dev-00000-of-00001.parquet`, if need be in a
subfolder named after the data set's configuration (`anatomy/test.jsonl`). Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from subspace.core.errors import DataError
from subspace.data.sources.files import kind_of
from subspace.data.sources.hub import HubSource, SavedSource, is_saved_dataset
from subspace.data.sources.readers import Row, read_rows
from subspace.evaluation.tasks.base import Doc, Task

__all__ = ["SHOT_SEED", "Documents", "SourceOverride", "override_for", "read_documents"]

SHOT_SEED = 1234
"""Seed of random shots; the harness has the same, so that both show the same examples."""

_ALIASES = {"train": ("training",), "validation": ("valid", "val", "dev"), "test": (), "dev": ("validation",)}


@dataclass(frozen=True, slots=True)
class SourceOverride:
    """Local places for a task.

    Attributes:
        path: Of the scored documents: a file, or a folder of splits.
        fewshot: Of the shots, where it is another one.
    """

    path: str | None = None
    fewshot: str | None = None


@dataclass(frozen=True, slots=True)
class Documents:
    """What a task is scored on; three tuples of one length.

    Attributes:
        docs: The documents.
        ids: A name for each, stable over runs.
        shots: The shots before each.
        num_fewshot: Their number.
        place: Where the documents were read.
        digest: SHA-256 of documents and shots.
    """

    docs: tuple[Doc, ...]
    ids: tuple[str, ...]
    shots: tuple[tuple[Doc, ...], ...]
    num_fewshot: int
    place: str
    digest: str


def read_documents(
    task: Task,
    source: SourceOverride | None = None,
    *,
    num_fewshot: int | None = None,
    limit: int | None = None,
) -> Documents:
    """Return the documents of a task.

    Args:
        task: The task.
        source: Local places instead of the hub.
        num_fewshot: Shots; None: as many as the task asks for.
        limit: The first so many documents of every group (MMLU: of every subject).

    Raises:
        DataError: E-DAT-001 if there is nothing to score or a file is missing; E-DAT-004, E-DAT-005 for rows of another
            layout; E-DAT-017 if a data set, a split or enough shots cannot be found.
    """
    source = source or SourceOverride()
    count = task.num_fewshot if num_fewshot is None else num_fewshot
    place = _place(task, source.path, task.source.split)
    docs = _read(task, place, source.path)
    ids, kept = _named(task, docs, limit)
    chosen = [docs[index] for index in kept]
    pool: list[Doc] = []
    if count:
        pool = _shot_pool(task, source, place, docs)
    same = count > 0 and pool == docs
    shots = _shots(task, chosen, pool, count, same)
    digest = hashlib.sha256()
    for part in (ids, chosen, shots):
        digest.update(json.dumps(part, sort_keys=True, default=str).encode())
    return Documents(tuple(chosen), tuple(ids), tuple(shots), count, place, digest.hexdigest())


def _named(task: Task, docs: Sequence[Doc], limit: int | None) -> tuple[list[str], list[int]]:
    """Return the names of the first `limit` documents of every group, and where they stand."""
    seen: dict[str, int] = {}
    ids, kept = [], []
    for place, doc in enumerate(docs):
        group = task.group(doc)
        index = seen.get(group, 0)
        seen[group] = index + 1
        if limit is None or index < limit:
            kept.append(place)
            named = task.identify(doc, index) if task.identify else f"{group or task.name}/{index}"
            ids.append(named)
    return ids, kept


def _shots(task: Task, docs: Sequence[Doc], pool: Sequence[Doc], count: int, same: bool) -> list[tuple[Doc, ...]]:
    """Return the shots of every document; one that is taken from the scored documents is never its own shot."""
    if not count:
        return [()] * len(docs)
    groups: dict[str, list[Doc]] = {}
    for doc in pool:
        groups.setdefault(task.group(doc), []).append(doc)
    draw = random.Random(SHOT_SEED)
    shots = []
    for doc in docs:
        known = groups.get(task.group(doc), [])
        if len(known) < count + same:
            raise DataError(
                "E-DAT-017",
                where=f"task {task.name}",
                found=f"{len(known)} documents to take {count} shots from",
                action="Give fewer shots with --num-fewshot.",
            )
        if task.sampler == "first":
            found = [each for each in known if not same or each != doc][:count]
        elif same:
            found = [each for each in draw.sample(known, count + 1) if each != doc][:count]
            found = found if len(found) == count else draw.sample([each for each in known if each != doc], count)
        else:
            found = draw.sample(known, count)
        shots.append(tuple(found))
    return shots


def _shot_pool(task: Task, source: SourceOverride, place: str, docs: list[Doc]) -> list[Doc]:
    split = task.source.fewshot_split
    if source.fewshot is not None:
        return _read(task, _place(task, source.fewshot, split or "train"), source.fewshot)
    if split is None or (source.path is not None and Path(source.path).is_file()):
        raise DataError(
            "E-DAT-017",
            where=f"task {task.name}",
            found=f"no documents for shots beside {place}" if split else "the task has no shots",
            expected=f"a folder with a split {split!r} too, or --source {task.name}:fewshot=PATH" if split else "",
            action="Give them, or --num-fewshot 0.",
        )
    return docs if split == task.source.split else _read(task, _place(task, source.path, split), source.path)


def _place(task: Task, path: str | None, split: str) -> str:
    """Return what is read: a path, or hub id, configuration and split."""
    if path is not None:
        return f"{path}:{split}" if Path(path).is_dir() else path
    if not task.source.hub:
        raise DataError(
            "E-DAT-001",
            where=f"task {task.name}",
            found="no source",
            expected="a file of yours",
            action=f"Give --source {task.name}=PATH.",
        )
    return ":".join(part for part in (task.source.hub, task.source.subset, split) if part)


def _read(task: Task, place: str, path: str | None) -> list[Doc]:
    split = place.rpartition(":")[2]
    rows = _local_rows(task, Path(path), split) if path is not None else _hub_rows(task, split)
    docs = []
    for row in rows:
        if isinstance(row, DataError):
            raise row
        doc = task.to_doc(row.values, row.place)
        if doc is not None:
            docs.append(doc)
    if not docs:
        raise DataError("E-DAT-001", where=place, found=f"no document for task {task.name}")
    return docs


def _hub_rows(task: Task, split: str) -> Iterable[Row | DataError]:
    try:
        return HubSource(task.source.hub, "huggingface", task.source.subset).read(split).rows
    except DataError as error:
        raise DataError(
            error.code,
            where=f"task {task.name}",
            found=error.found,
            expected="a data set that can be reached or is cached, or a local copy",
            action=f"Give --source {task.name}=PATH.",
        ) from error


def _local_rows(task: Task, path: Path, split: str) -> Iterable[Row | DataError]:
    if not path.is_dir():
        yield from read_rows(path)
        return
    inner = [path / name for name in (task.source.subset, task.name.rpartition("/")[2]) if name]
    path = next((folder for folder in inner if folder.is_dir()), path)
    if is_saved_dataset(path):
        saved = SavedSource(path)
        yield from saved.read(_known(split, saved.splits, path)).rows
        return
    files: dict[str, list[Path]] = {}
    for file in sorted(path.iterdir()):
        if kind_of(file) is not None:
            files.setdefault(file.name.split(".")[0].split("-")[0].lower(), []).append(file)
    for file in files[_known(split, files, path)]:
        yield from read_rows(file)


def _known(split: str, names: Iterable[str], path: Path) -> str:
    names = list(names)
    found = next((name for name in (split, *_ALIASES.get(split, ())) if name in names), None)
    if found is None:
        raise DataError(
            "E-DAT-017",
            where=str(path),
            found=f"no split {split!r}",
            expected=f"a file {split}.jsonl (or .jsonl.gz, .json, .csv, .parquet)"
            + (f"; there are {', '.join(sorted(names))}" if names else ""),
        )
    return found


def override_for(task: str, sources: Mapping[str, SourceOverride]) -> SourceOverride | None:
    """Return what was given for a task, or for its family (`mmlu` for `mmlu/anatomy`)."""
    return sources.get(task) or sources.get(task.partition("/")[0])
