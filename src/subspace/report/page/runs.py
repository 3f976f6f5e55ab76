"""Every run in one line, what was missing, and the files beside the page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from html import escape
from typing import Any

from subspace.core.units import format_bytes, format_count, format_seconds
from subspace.report.charts.marks import swatch
from subspace.report.measures import Measure, metric_name
from subspace.report.page.parts import MOST_ROWS, Value, folded, section, table
from subspace.report.study import Study
from subspace.report.tables import SummaryRow, summary_rows
from subspace.report.words.phrase import Said, both, say

__all__ = ["files_beside", "missing", "runs"]

_MOST_NOTES = 60
_LEAST_DIGITS = 3


def runs(study: Study) -> str:
    """Return the table of all runs."""
    rows = summary_rows(study.records)
    metric = rows[0].metric
    before = any(row.score_before is not None for row in rows)
    fidelity = any(row.fidelity for row in rows)
    heads: list[Said] = [say("run"), *([say("fidelity")] if fidelity else []), say("seed")]
    heads += [say("score_before")] if before else []
    heads.append(say("validation_loss") if metric is None else metric_name(metric))
    heads += [say("trained"), say("memory_head"), say("time"), say("state")]
    form = _form(metric, rows)
    groups = {id(run): group for group in study.arms.groups for run in group.records}
    body = []
    for run, row in zip(study.records[:MOST_ROWS], rows, strict=False):
        group = groups[id(run)]
        cells = [Value(f"{swatch(group)}{escape(row.run)}", row.run)]
        cells += [_value(row.fidelity, str)] if fidelity else []
        cells.append(_value(row.seed, str))
        cells += [_value(row.score_before, form)] if before else []
        cells += [
            _value(row.best_validation_loss if metric is None else row.score, form),
            *_costs(row),
            Value(both(say(f"state_{row.outcome}")), row.outcome),
        ]
        body.append((group.index, cells))
    note = [say("rows_left_out", shown=MOST_ROWS, count=len(rows))] if len(rows) > MOST_ROWS else []
    made = table(heads, body)
    shown = folded(say("runs_show", count=len(rows)), made) if len(rows) > 24 else made
    return section("runs", say("runs"), shown, note)


def _form(metric: str | None, rows: Sequence[SummaryRow]) -> Callable[[float], str]:
    """Return how scores are written, all with as many digits; three at least, as runs of several tasks may be here."""
    found = [
        score
        for row in rows
        for score in ((row.best_validation_loss,) if metric is None else (row.score_before, row.score))
        if score is not None
    ]
    measure = Measure.of(metric or "loss", found)
    return measure.value if measure.share else replace(measure, digits=max(measure.digits, _LEAST_DIGITS)).value


def _costs(row: SummaryRow) -> list[Value]:
    return [
        _value(row.trained_parameters, format_count),
        _value(row.measured_peak_bytes, format_bytes),
        _value(row.seconds, format_seconds),
    ]


def _value(found: Any, form: Callable[[Any], str]) -> Value:
    return Value("–", None) if found is None else Value(escape(form(found)), found)


def missing(study: Study) -> str:
    """Return what was missing or ignored, run by run; the same note of many runs once."""
    told: dict[str, list[str]] = {}
    for run in study.records:
        for note in run.notes:
            told.setdefault(note, []).append(run.name)
    for bench in study.benches:
        for note in bench.notes:
            told.setdefault(note, []).append(bench.name)
    items = "".join(
        f"<li><b>{escape(', '.join(names[:4]))}{f' +{len(names) - 4}' if names[4:] else ''}</b>: {escape(note)}</li>"
        for note, names in list(told.items())[:_MOST_NOTES]
    )
    return section("missing", say("notes"), f"<ul>{items}</ul>" if items else "")


def files_beside(files: Mapping[str, str]) -> str:
    """Return links to the files beside the page."""
    items = "".join(
        f'<li><a href="{escape(name)}">{escape(name)}</a> <span class="hint">{both(say(key))}</span></li>'
        for name, key in files.items()
    )
    return section("files", say("files"), f'<ul class="files">{items}</ul>' if items else "")
