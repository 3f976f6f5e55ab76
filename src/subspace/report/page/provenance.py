"""Where every number comes from: versions, commits, machines, digests, and the commands that make it again."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from html import escape
from typing import Any

from subspace.report.charts.marks import swatch
from subspace.report.page.parts import Value, folded, section, table
from subspace.report.record import RunRecord
from subspace.report.study import Study
from subspace.report.values import dig, number
from subspace.report.words.phrase import Said, both, say

__all__ = ["provenance"]

_DIGEST = 12
"""Signs of a digest that are shown; the data holds all of them."""
_MOST = 12


def provenance(study: Study) -> str:
    """Return the section; nothing where no run says where it comes from."""
    commands = [command for command in (study.command, *(bench.command for bench in study.benches)) if command]
    again = "".join(f"<pre><code>{escape(command)}</code></pre>" for command in commands)
    facts = _facts(study.records)
    tasks = _tasks(study.records)
    if not facts and not again and not tasks:
        return ""
    told = "".join(
        f"<div><dt>{both(name)}</dt><dd>{escape(', '.join(values))}</dd></div>"
        for name, values in ((name, [*values[:_MOST], *["…"][: len(values[_MOST:])]]) for name, values in facts)
    )
    parts = f"<h3>{both(say('origin_tasks'))}</h3>{tasks}" if tasks else ""
    parts += f"<h3>{both(say('repeat'))}</h3>{again}" if again else ""
    return section(
        "provenance",
        say("provenance"),
        f'<dl class="origin">{told}</dl>{parts}{folded(say("provenance_runs"), _runs(study))}',
        [say("provenance_note")],
    )


def _facts(records: Iterable[RunRecord]) -> list[tuple[Said, list[str]]]:
    """Return the distinct versions, commits and machines of all runs."""
    versions: dict[str, dict[str, None]] = {}
    other: dict[str, dict[str, None]] = {"commit": {}, "device": {}, "platform": {}, "dates": {}}
    for record in records:
        attempts = record.manifest.get("attempts")
        for attempt in attempts if isinstance(attempts, list) else []:
            found = dig(attempt, "versions")
            for name, version in found.items() if isinstance(found, Mapping) else ():
                versions.setdefault(str(name), {})[str(version)] = None
            for key in ("commit", "device", "platform"):
                if isinstance(value := dig(attempt, key), str):
                    other[key][value] = None
            if isinstance(start := dig(attempt, "start"), str):
                other["dates"][start[:10]] = None
    listed = [f"{name} {' / '.join(values)}" for name, values in sorted(versions.items())]
    days = sorted(other.pop("dates"))
    found = [(say(f"origin_{key}"), list(values)) for key, values in other.items() if values]
    found += [(say("origin_dates"), [days[0]] if len(days) == 1 else [f"{days[0]} – {days[-1]}"])] if days else []
    return ([(say("origin_versions"), listed)] if listed else []) + found


def _tasks(records: Iterable[RunRecord]) -> str:
    """Return what each task was that runs were evaluated on: one line, or one for each form that it had."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for record in records:
        for split, task in record.tasks.items():
            found.setdefault((split, _text(task.get("digest"))), []).append(task)
    if not found:
        return ""
    columns = ("version", "num_fewshot", "metric", "num_items", "source")
    heads: list[Said] = [say("origin_task"), *(say(f"origin_task_{key}") for key in columns), say("origin_task_digest")]
    rows = []
    for (split, digest), tasks in sorted(found.items()):
        values = [next((task[key] for task in tasks if task.get(key) is not None), None) for key in columns]
        cells = [_cell(split), *map(_cell, values), Value(f"<code>{escape(digest[:_DIGEST])}</code>", digest)]
        rows.append((None, [*cells, Value(str(len(tasks)), len(tasks))]))
    return table([*heads, say("facts_runs")], rows)


def _cell(value: Any) -> Value:
    return (
        Value("–", None)
        if value is None
        else Value(escape(str(value)), value if number(value) is not None else str(value))
    )


def _runs(study: Study) -> str:
    """Return digests and command of every run."""
    heads: list[Said] = [say("run"), *(say(f"origin_{key}") for key in ("recipe", "data", "base_model", "command"))]
    rows = []
    for group in study.arms.groups:
        for record in group.records:
            digests = [
                Value(f"<code>{escape(text[:_DIGEST])}</code>", text) if text else Value("–", None)
                for text in (
                    _text(dig(record.manifest, "facts", "digests", key)) for key in ("recipe", "data", "base_model")
                )
            ]
            command = _command(record)
            name = Value(f"{swatch(group)}{escape(record.name)}", record.name)
            rows.append((group.index, [name, *digests, Value(f"<code>{escape(command)}</code>", command)]))
    return table(heads, rows)


def _command(record: RunRecord) -> str:
    """Return what was typed; without a path before the program's name."""
    attempts = record.manifest.get("attempts")
    argv = dig(attempts[0], "argv") if isinstance(attempts, list) and attempts else None
    if not isinstance(argv, list) or not argv:
        return ""
    first = str(argv[0]).rpartition("/")[2]
    return shlex.join([first, *map(str, argv[1:])])


def _text(found: Any) -> str:
    return found if isinstance(found, str) else ""
