"""One HTML file that shows a comparison: no script, nothing loaded from anywhere, readable by day and night."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from subspace.core.errors import DataError
from subspace.core.units import format_bytes, format_count, format_seconds
from subspace.report.charts import Bar, Range, bars, heat_map, line_chart, ranges
from subspace.report.groups import LIGHT, Group, group_runs
from subspace.report.heat import energy_maps, energy_range
from subspace.report.lines import loss_charts, subspace_charts
from subspace.report.record import RunRecord
from subspace.report.strings import words
from subspace.report.stylesheet import stylesheet
from subspace.report.tables import LOWER_IS_BETTER, SummaryRow, format_score, main_metric, summary_rows
from subspace.runs.durable import replace_file

__all__ = ["write_page"]

_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""The browser itself refuses whatever is not in the file."""
_SMALL_PIXELS = 150
"""Height of one of many small charts."""


def write_page(
    records: Sequence[RunRecord], path: Path, *, files: Mapping[str, str] | None = None, language: str = "en"
) -> None:
    """Write the page of a comparison, of one run or many.

    Args:
        records: Runs in the order in which they are shown.
        path: The HTML file to write.
        files: Files beside the page to point at: name to a key of the strings that says what it is.
        language: A key of `strings.STRINGS`.

    Raises:
        DataError: E-DAT-001 without runs.
        ResourceError: E-RES-002 if the disk refuses.
    """
    if not records:
        raise DataError("E-DAT-001", where=str(path), found="no runs to show", action="Name at least one run folder.")
    text = words(language)
    groups, metric = group_runs(records), main_metric(records)
    title = _title(records, text)
    parts = [
        _head(records, groups, metric, title, text),
        _scores(groups, metric, text),
        _curves(groups, text),
        _subspace(groups, text),
        _cost(groups, text),
        _table(records, groups, text),
        _notes(records, text),
        _files(files or {}, text),
    ]
    from subspace import __version__

    page = (
        f'<!doctype html><html lang="{text["language"]}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width,initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}"><link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{stylesheet()}</style></head><body><main>{''.join(parts)}"
        f"<footer>{escape(text['footer'].format(version=__version__))}</footer></main></body></html>\n"
    )
    replace_file(path, [page.encode("utf-8", errors="replace")])


def _title(records: Sequence[RunRecord], text: Mapping[str, str]) -> str:
    if len(records) == 1:
        return text["title_one"].format(run=records[0].name)
    return text["title_many"].format(count=len(records))


def _head(
    records: Sequence[RunRecord], groups: Sequence[Group], metric: str | None, title: str, text: Mapping[str, str]
) -> str:
    single = len(groups) > 1 and all(len(group.records) == 1 for group in groups) and metric is not None
    caution = f'<p class="caution">{escape(text["lead_seeds"])}</p>' if single else ""
    seeds = sorted({record.seed for record in records if record.seed is not None})
    facts = {
        text["facts_model"]: _same([record.model for record in records], text),
        text["facts_data"]: _same([record.data for record in records], text),
        text["facts_seeds"]: ", ".join(str(seed) for seed in seeds) or text["unknown"],
        text["facts_steps"]: _same([str(record.last_step) for record in records], text),
    }
    told = "".join(f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in facts.items())
    return (
        f'<header><p class="kicker">{escape(text["kicker"])}</p><h1>{escape(title)}</h1>'
        f'<p class="lead">{escape(_lead(groups, metric, text))}</p>{caution}<dl class="facts">{told}</dl></header>'
    )


def _lead(groups: Sequence[Group], metric: str | None, text: Mapping[str, str]) -> str:
    """Return the one sentence that a hurried reader takes away."""
    means = (
        {group.label: _mean([run.scores.get(metric) for run in group.records]) for group in groups} if metric else {}
    )
    scored = {label: value for label, value in means.items() if value is not None}
    if not scored or metric is None:
        lowest = {
            group.label: _mean([min(run.series("eval", "loss")[1], default=None) for run in group.records])
            for group in groups
        }
        losses = {label: value for label, value in lowest.items() if value is not None}
        if not losses:
            return text["lead_unscored"]
        label = min(losses, key=lambda name: losses[name])
        return text["lead_loss"].format(label=label, score=f"{losses[label]:.4g}", count=len(losses))
    best = (min if metric in LOWER_IS_BETTER else max)(scored, key=lambda name: scored[name])
    fields = {"label": best, "score": format_score(metric, scored[best]), "metric": text.get(metric, metric)}
    sentence = text["lead_best" if len(scored) > 1 else "lead_one"].format(count=len(scored), **fields)
    group = next(group for group in groups if group.label == best)
    before = _mean([run.scores_before.get(metric) for run in group.records])
    gain = "" if before is None else " " + text["lead_gain"].format(before=format_score(metric, before))
    runs = len(group.records)
    return sentence + gain + (" " + text["lead_mean"].format(count=runs) if runs > 1 else "")


def _scores(groups: Sequence[Group], metric: str | None, text: Mapping[str, str]) -> str:
    if metric is None:
        return ""
    rows = []
    for group in groups:
        after = [run.scores[metric] for run in group.records if metric in run.scores]
        if after:
            rows.append(Range(group, _mean([run.scores_before.get(metric) for run in group.records]), after))
    lower = metric in LOWER_IS_BETTER
    rows.sort(key=lambda row: row.after, reverse=not lower)
    values = [value for row in rows for value in (*row.values, row.before) if value is not None]
    share = not lower and all(0 <= value <= 1 for value in values)
    low, high = (0.0, 1.0) if share else (0.0 if min(values) >= 0 else min(values), max(values) * 1.02)
    note = text["scores_note"].format(
        metric=_capital(text.get(metric, metric)), direction=text["lower_better" if lower else "higher_better"]
    )
    chart = ranges(rows, lambda value: format_score(metric, value), low, high, text)
    return f'<section><h2>{escape(text["scores"])}</h2><p class="note">{escape(note)}</p>{chart}</section>'


def _curves(groups: Sequence[Group], text: Mapping[str, str]) -> str:
    charts = "".join(line_chart(chart, text) for chart in loss_charts(groups, text))
    return f'<section><h2>{escape(text["curves"])}</h2><div class="pair">{charts}</div></section>' if charts else ""


def _subspace(groups: Sequence[Group], text: Mapping[str, str]) -> str:
    """Return what refreshes did to the subspaces; nothing if no run has logged any."""
    charts = subspace_charts(groups, text)
    if not charts:
        return ""
    shown = {line.group.index: line.group.label for chart in charts for line in chart.lines}
    keys = "".join(
        f'<span><i class="swatch b{index % len(LIGHT)}"></i>{escape(label)}</span>' for index, label in shown.items()
    )
    drawn = "".join(line_chart(chart, text, _SMALL_PIXELS) for chart in charts)
    return (
        f'<section><h2>{escape(text["subspace"])}</h2><p class="note">{escape(text["subspace_note"])}</p>'
        f'<div class="keys">{keys}</div><div class="pair small">{drawn}</div>{_heat(groups, text)}</section>'
    )


def _heat(groups: Sequence[Group], text: Mapping[str, str]) -> str:
    maps = energy_maps(groups)
    if not maps:
        return ""
    low, high = energy_range(maps)
    drawn = "".join(heat_map(found, low, high, text) for found in maps)
    ends = [f"{100 * value:.1f} %" for value in (low, high)]
    return (
        f'<h3>{escape(text["heat"])}</h3><p class="note">{escape(text["heat_note"])}</p>'
        f'<div class="legend">{ends[0]}<i></i>{ends[1]}</div><div class="pair">{drawn}</div>'
    )


def _cost(groups: Sequence[Group], text: Mapping[str, str]) -> str:
    rows = []
    for group in groups:
        measured = _mean([run.measured_peak_bytes for run in group.records])
        planned = _mean([run.planned_peak_bytes for run in group.records])
        if measured is not None or planned is not None:
            rows.append(Bar(group, measured, planned))
    if not rows:
        return ""
    return (
        f'<section><h2>{escape(text["cost"])}</h2><p class="note">{escape(text["cost_note"])}</p>'
        f"{bars(rows, format_bytes, text)}</section>"
    )


@dataclass(frozen=True)
class _Column:
    """One column of the table: its head, and what it shows of a row, with a smaller line below or ""."""

    head: str
    value: Callable[[SummaryRow], str]
    below: Callable[[SummaryRow], str] = lambda row: ""
    best: Callable[[SummaryRow], bool] = lambda row: False

    def cell(self, row: SummaryRow) -> str:
        value, below = escape(self.value(row)), self.below(row)
        told = f"<b class='best'>{value}</b>" if self.best(row) else value
        under = f'<span class="sub">{escape(below)}</span>' if below else ""
        return f'<td data-label="{escape(self.head)}"><span>{told}{under}</span></td>'


def _columns(rows: Sequence[SummaryRow], text: Mapping[str, str]) -> list[_Column]:
    metric = rows[0].metric
    shown = [row.score for row in rows if row.score is not None]
    best = (min if metric in LOWER_IS_BETTER else max)(shown) if len(shown) > 1 else None
    columns = [_Column(text["seed"], lambda row: _or_dash(row.seed))]
    if any(row.score_before is not None for row in rows):
        columns.append(_Column(text["score_before"], lambda row: format_score(metric, row.score_before)))
    if metric is None:
        columns.append(_Column(text["validation_loss"], lambda row: format_score("loss", row.best_validation_loss)))
    else:
        head = text["score_after"] if len(columns) == 2 else _capital(text.get(metric, metric))
        is_best = lambda row: best is not None and row.score == best  # noqa: E731
        columns.append(_Column(head, lambda row: format_score(metric, row.score), best=is_best))
    planned = text["planned"]
    return [
        *columns,
        _Column(text["trained"], lambda row: _or_dash(row.trained_parameters, format_count)),
        _Column(
            text["memory"],
            lambda row: _or_dash(row.measured_peak_bytes, format_bytes),
            lambda row: _or_dash(row.planned_peak_bytes, lambda size: f"{planned} {format_bytes(size)}", ""),
        ),
        _Column(text["time"], lambda row: _or_dash(row.seconds, format_seconds)),
        _Column(text["state"], lambda row: text.get(row.outcome, row.outcome)),
    ]


def _table(records: Sequence[RunRecord], groups: Sequence[Group], text: Mapping[str, str]) -> str:
    colours = {id(run): group.index % len(LIGHT) for group in groups for run in group.records}
    rows = summary_rows(records)
    columns = _columns(rows, text)
    body = "".join(
        f'<tr><td class="run"><i class="swatch b{colours[id(record)]}"></i><span>{escape(row.run)}</span></td>'
        f"{''.join(column.cell(row) for column in columns)}</tr>"
        for record, row in zip(records, rows, strict=True)
    )
    heads = "".join(f'<th scope="col">{escape(head)}</th>' for head in (text["run"], *(c.head for c in columns)))
    return (
        f"<section><h2>{escape(text['runs'])}</h2><table><thead><tr>{heads}</tr></thead>"
        f"<tbody>{body}</tbody></table></section>"
    )


def _notes(records: Sequence[RunRecord], text: Mapping[str, str]) -> str:
    items = "".join(
        f"<li><b>{escape(run.name)}</b>: {escape('; '.join(run.notes))}</li>" for run in records if run.notes
    )
    return f"<section><h2>{escape(text['notes'])}</h2><ul>{items}</ul></section>" if items else ""


def _files(files: Mapping[str, str], text: Mapping[str, str]) -> str:
    items = "".join(
        f'<li><a href="{escape(name)}">{escape(name)}</a> – {escape(text[key])}</li>' for name, key in files.items()
    )
    return f"<section><h2>{escape(text['files'])}</h2><ul>{items}</ul></section>" if items else ""


def _same(values: Sequence[str], text: Mapping[str, str]) -> str:
    found = list(dict.fromkeys(value for value in values if value))
    if not found:
        return text["unknown"]
    return ", ".join(found) if len(found) <= 2 else text["several"].format(count=len(found))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _or_dash(value: Any, form: Callable[[Any], str] = str, dash: str = "–") -> str:
    return dash if value is None else form(value)


def _capital(words: str) -> str:
    return words[:1].upper() + words[1:]
