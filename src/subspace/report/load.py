"""Run folders as they are found: of any age, half-written, of another schema, or just a log; and foreign results.

What cannot be read is left out and named in `notes`; nothing here raises because of what a folder contains.
"""

from __future__ import annotations

import contextlib
import gc
import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from subspace.core.errors import CheckpointError, DataError
from subspace.report.bench import BENCH_FILE, Bench, read_bench
from subspace.report.readers import READERS, Reader
from subspace.report.record import RunRecord
from subspace.report.values import dig, json_lines, number
from subspace.runs.discovery import DEPTH, is_run, runs_below
from subspace.runs.layout import RunLayout
from subspace.runs.log import LOG_SCHEMA, read_log
from subspace.runs.manifest import read_manifest

__all__ = ["RunRecord", "find_benches", "find_runs", "read_run", "read_runs"]

_DEPTH_IN_BENCH = 5
"""Levels above a named folder at which its bench is looked for."""


def read_run(folder: Path, name: str | None = None) -> RunRecord:
    """Read one run folder, a folder that holds just a log, or what one of the `READERS` recognises."""
    layout = RunLayout(folder)
    if not is_run(folder) and (reader := _reader_of(folder)) is not None:
        return reader.read(folder, name or folder.resolve().name)
    notes: list[str] = []
    manifest = _manifest(layout, notes)
    log = _log(layout, notes)
    splits = sorted(path.stem for path in layout.predictions("x").parent.glob("*.jsonl"))
    record = RunRecord(
        folder=folder,
        name=name or folder.resolve().name,
        config=_config(layout, notes),
        plan=_json(layout.plan, notes),
        manifest=manifest,
        log=log,
        metrics=_metrics(layout, manifest, notes),
        predictions={split: layout.predictions(split) for split in splits},
        tasks=_tasks(layout, notes),
    )
    if manifest and record.outcome != "finished":
        notes.append(f"the run is not finished ({record.outcome}, step {record.last_step})")
    if record.seed is None:
        notes.append("seed unknown")
    return replace(record, notes=tuple(notes))


def find_benches(paths: Iterable[Path]) -> list[Bench]:
    """Return the benches that `paths` are, hold, or lie in."""
    found: dict[Path, Bench] = {}
    for path in paths:
        whole = path.resolve()
        inside = sorted(whole.glob(f"*/{BENCH_FILE}")) if whole.is_dir() else []
        for folder in [whole, *whole.parents[:_DEPTH_IN_BENCH], *(file.parent for file in inside)]:
            if folder not in found and (bench := read_bench(folder)) is not None:
                found[folder] = bench
    return list(found.values())


def find_runs(paths: Iterable[Path], benches: Sequence[Bench] = ()) -> list[Path]:
    """Return the runs among `paths` and, where one is no run itself, those up to three levels below it.

    Of a bench the runs that it compares count, and not those that searched for a learning rate.

    Raises:
        DataError: E-DAT-001 if a path holds no run.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        whole = path.resolve()
        known = [bench for bench in benches if bench.jobs]
        own = [bench for bench in known if whole.is_relative_to(bench.folder) or bench.folder.parent == whole]
        jobs = [job.run for bench in own for job in bench.jobs]
        inside = [path] if _is_run(path) else [run for run in jobs if run.is_relative_to(whole) and _is_run(run)]
        if not inside or any(bench.folder.parent == whole for bench in own):
            inside += [run for run in runs_below(path, _is_run) if not _in_any(run, own)]
        if not inside:
            raise DataError(
                "E-DAT-001",
                where=str(path),
                found="no run here" if path.exists() else "no such folder",
                expected=(
                    f"a run folder (with {RunLayout(path).manifest.name} or {RunLayout(path).log.name}) at most "
                    f"{DEPTH} levels below, "
                    f"or results of {', '.join(reader.name for reader in READERS)}"
                ),
            )
        for folder in inside:
            found.setdefault(folder.resolve(), folder)
    return list(found.values())


def read_runs(paths: Iterable[Path], benches: Sequence[Bench] = ()) -> list[RunRecord]:
    """Read every run in or below `paths`, each under a name that no other has.

    Raises:
        DataError: E-DAT-001 if a path holds no run.
    """
    folders = find_runs(paths, benches)
    names = _names([folder.resolve() for folder in folders])
    with _paused_collector():
        return [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]


@contextlib.contextmanager
def _paused_collector() -> Iterator[None]:
    """Keep the collector from walking millions of fresh records, none of which is garbage."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _in_any(run: Path, benches: Iterable[Bench]) -> bool:
    return any(run.resolve().is_relative_to(bench.folder) for bench in benches)


def _is_run(path: Path) -> bool:
    return is_run(path) or _reader_of(path) is not None


def _reader_of(path: Path) -> Reader | None:
    return next((reader for reader in READERS if reader.recognises(path)), None)


def _names(folders: Sequence[Path]) -> list[str]:
    """Return for each path the shortest end of it that no other path has."""
    names = [folder.name for folder in folders]
    for length in range(2, max(len(folder.parts) for folder in folders) + 1):
        counts = Counter(names)
        if len(counts) == len(names):
            break
        names = [
            "/".join(folder.parts[-length:]) if counts[name] > 1 else name
            for folder, name in zip(folders, names, strict=True)
        ]
    return names


def _manifest(layout: RunLayout, notes: list[str]) -> Mapping[str, Any]:
    try:
        return read_manifest(layout.folder)
    except CheckpointError as error:
        if error.code == "E-CKP-001":
            notes.append(f"{layout.manifest.name} is missing")
            return {}
        notes.append(f"{layout.manifest.name}: {error.found}; read as far as it is known")
        return _json(layout.manifest, [])


def _log(layout: RunLayout, notes: list[str]) -> list[Mapping[str, Any]]:
    records, ignored = _records(layout.log)
    notes += [note.replace(f"{layout.log}", layout.log.name) for note in ignored]
    others = sorted({str(record.get("schema", "unknown")) for record in records if record.get("schema") != LOG_SCHEMA})
    if others:
        notes.append(f"{layout.log.name}: written in schema {', '.join(others)}; the fields known here are shown")
    last: dict[Any, int] = {}
    for place, record in enumerate(records):
        once = record.get("event") in ("step", "eval") and number(record.get("step")) is not None
        key = (record.get("event"), record.get("split"), record.get("step")) if once else place
        last[key if once else place] = place
    if len(last) < len(records):
        notes.append(f"{layout.log.name}: {len(records) - len(last)} records logged twice; the last of each is shown")
    return [records[place] for place in sorted(last.values())]


def _records(path: Path) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return what `read_log` does; a log without any damage is parsed in one go."""
    try:
        found = json_lines(path.read_bytes())
    except OSError:
        found = None
    return (found, ()) if found is not None else read_log(path)


def _metrics(layout: RunLayout, manifest: Mapping[str, Any], notes: list[str]) -> Mapping[str, Mapping[str, float]]:
    tree = _json(layout.metrics, notes)
    if not tree:
        sealed = dig(manifest, "summary", "metrics")
        tree = {"validation": sealed} if isinstance(sealed, dict) else {}
    clean: dict[str, dict[str, float]] = {}
    for split, scores in tree.items():
        if isinstance(scores, dict):
            clean[str(split)] = {
                str(name): value for name, found in scores.items() if (value := number(found)) is not None
            }
    return {split: scores for split, scores in clean.items() if scores}


def _tasks(layout: RunLayout, notes: list[str]) -> Mapping[str, Mapping[str, Any]]:
    """Return what is known of tasks; most runs were evaluated on none, and have no such file."""
    tree = _json(layout.tasks, notes) if layout.tasks.exists() else {}
    return {split: found for split, found in tree.items() if isinstance(found, dict)}


def _json(path: Path, notes: list[str]) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        notes.append(f"{path.name} is missing")
    except (OSError, ValueError, RecursionError) as error:
        notes.append(f"{path.name} is not readable ({str(error).splitlines()[0]})")
    else:
        if isinstance(found, dict):
            return found
        notes.append(f"{path.name} is not a JSON object")
    return {}


def _config(layout: RunLayout, notes: list[str]) -> Mapping[str, Any]:
    import yaml

    try:
        # The C loader is ten times as fast; both build plain values only.
        loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
        found = yaml.load(layout.config.read_bytes(), Loader=loader)
    except FileNotFoundError:
        notes.append(f"{layout.config.name} is missing")
    except (OSError, yaml.YAMLError, RecursionError, ValueError) as error:
        notes.append(f"{layout.config.name} is not readable ({str(error).splitlines()[0]})")
    else:
        if isinstance(found, dict):
            return found
        notes.append(f"{layout.config.name} is not a mapping")
    return {}
