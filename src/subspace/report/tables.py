"""Runs as numbers: a tidy table of everything that was logged, and one line per run that says what matters."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subspace.core.units import format_bytes, format_count, format_seconds
from subspace.report.fidelity import marked
from subspace.report.record import RunRecord
from subspace.report.refreshes import weight_rows
from subspace.report.values import number
from subspace.runs.durable import replace_file

if TYPE_CHECKING:
    from rich.table import Table

    from subspace.report.arms import Field

__all__ = [
    "LOWER_IS_BETTER",
    "SummaryRow",
    "format_score",
    "main_metric",
    "summary_rows",
    "summary_table",
    "tidy_rows",
    "write_csv",
    "write_epochs",
    "write_refreshes",
    "write_summary",
    "write_tidy",
]

LOWER_IS_BETTER = frozenset(
    {"loss", "perplexity", "word_perplexity", "byte_perplexity", "bits_per_byte", "forgetting", "drift"}
)
_PREFERRED = ("exact_match", "accuracy", "f1", "rougeL", "perplexity", "loss")
_RUN = ("run", "method", "fidelity", "model", "seed")
_TIDY = (*_RUN, "step", "metric", "value")
_REFRESHES = (*_RUN, "step", "weight", "metric", "value")
_EPOCHS = (*_RUN, "task", "number", "step", "loss", "seconds")
_NOT_MEASURED = frozenset({"schema", "event", "step", "split", "machine"})


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """One run in one line; None where it is not known. The columns of `summary.csv`."""

    run: str
    method: str
    fidelity: str | None
    model: str
    data: str
    seed: int | None
    outcome: str
    steps: int
    metric: str | None
    score_before: float | None
    score: float | None
    train_loss: float | None
    best_validation_loss: float | None
    trained_parameters: int | None
    loaded_bytes: int | None
    planned_peak_bytes: int | None
    measured_peak_bytes: int | None
    seconds: float | None


def main_metric(records: Iterable[RunRecord], split: str | None = None) -> str | None:
    """Return the metric that most runs were scored by; among equals the one that says most about answers.

    Without any score None, although runs may have logged a validation loss. Without a split, the one that speaks for a
    run counts.
    """
    found = [record.scores if split is None else record.metrics.get(split, {}) for record in records]
    named = {name for scores in found for name in scores}
    order = [*(name for name in _PREFERRED if name in named), *sorted(named - set(_PREFERRED))]
    return max(order, key=lambda name: sum(name in scores for scores in found), default=None)


def summary_rows(records: Sequence[RunRecord]) -> list[SummaryRow]:
    """Return one row per run, in the order given."""
    metric = main_metric(records)
    return [_summary_row(record, metric) for record in records]


def _summary_row(record: RunRecord, metric: str | None) -> SummaryRow:
    _, losses = record.series("step", "loss")
    _, validation = record.series("eval", "loss")
    return SummaryRow(
        run=record.name,
        method=record.method,
        fidelity=record.fidelity,
        model=record.model,
        data=record.data,
        seed=record.seed,
        outcome=record.outcome,
        steps=record.last_step,
        metric=metric,
        score_before=None if metric is None else record.scores_before.get(metric),
        score=None if metric is None else record.scores.get(metric),
        train_loss=losses[-1] if losses else None,
        best_validation_loss=min(validation, default=None),
        trained_parameters=record.trained_parameters,
        loaded_bytes=record.loaded_bytes,
        planned_peak_bytes=record.planned_peak_bytes,
        measured_peak_bytes=record.measured_peak_bytes,
        seconds=record.seconds,
    )


def tidy_rows(records: Iterable[RunRecord]) -> Iterator[dict[str, Any]]:
    """Yield every measured number in long form: run, method, fidelity, model, seed, step, metric, value.

    Metrics are named by where they come from: `train.loss`, `validation.loss`, `machine.rss_bytes`; scores taken after
    training stand at the last step, those of the untuned model as `before.<name>` at step 0. What a method logs of
    itself is named by its kind: `refresh.captured_energy`.
    """
    for record in records:
        run = _run(record)
        for step, metric, value in _measured(record):
            yield {**run, "step": step, "metric": metric, "value": value}


def _measured(record: RunRecord) -> Iterator[tuple[int, str, float]]:
    names: dict[tuple[str, str], str] = {}
    for entry in record.log:
        step = number(entry.get("step"))
        origin = _origin(entry)
        if step is None or origin is None:
            continue
        measured = [(origin, key, found) for key, found in entry.items() if key not in _NOT_MEASURED]
        machine = entry.get("machine")
        if entry.get("event") != "eval" and isinstance(machine, dict):
            measured += [("machine", key, found) for key, found in machine.items()]
        for source, key, found in measured:
            value = number(found)
            if value is not None:
                name = names.get((source, key)) or names.setdefault((source, key), f"{source}.{key}")
                yield int(step), name, value
    for split, scores in record.metrics.items():
        step = 0 if split == "before" else record.last_step
        for name, value in scores.items():
            yield int(step), f"{split}.{name}", value


def _run(record: RunRecord) -> dict[str, Any]:
    facts = record.name, record.method, record.fidelity, record.model, record.seed
    return dict(zip(_RUN, facts, strict=True))


def _origin(entry: Mapping[str, Any]) -> str | None:
    """Return what the metrics of a log record are named by; None if it holds no measurements."""
    match entry.get("event"):
        case "step":
            return "train"
        case "eval":
            return str(entry.get("split", "validation"))
        case "method":
            return str(entry.get("kind", "method"))
    return None


def write_refreshes(records: Iterable[RunRecord], path: Path) -> None:
    """Write the figures of every refresh, weight by weight and in long form, as CSV.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    runs = ((_run(record), record.refreshes) for record in records)
    write_csv(path, _REFRESHES, ({**run, **row} for run, found in runs for row in weight_rows(found)))


def write_epochs(fields: Iterable[Field], path: Path) -> None:
    """Write validation loss and seconds of every epoch of every run as CSV, each with the task that it was trained on.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    rows = (
        {**_run(record), "task": field.name, **asdict(epoch)}
        for field in fields
        for record in field.records
        for epoch in record.epochs
    )
    write_csv(path, _EPOCHS, rows)


def write_tidy(records: Iterable[RunRecord], path: Path) -> None:
    """Write `tidy_rows` as CSV.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    replace_file(path, _tidy_text(records))


def _tidy_text(records: Iterable[RunRecord]) -> Iterator[bytes]:
    """Yield the file run by run: there may be millions of rows, of which only the last three cells differ."""
    yield (",".join(_TIDY) + "\n").encode()
    quoted: dict[str, str] = {}
    for record in records:
        run = _in_csv(list(_run(record).values()))
        lines = []
        for step, metric, value in _measured(record):
            name = quoted.get(metric) or quoted.setdefault(metric, _in_csv([metric]))
            lines.append(f"{run},{step},{name},{value!r}\n")
        yield "".join(lines).encode("utf-8", errors="surrogateescape")


def _in_csv(cells: Sequence[Any]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def write_summary(rows: Iterable[SummaryRow], path: Path) -> None:
    """Write summary rows as CSV.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    write_csv(path, tuple(column.name for column in fields(SummaryRow)), (asdict(row) for row in rows))


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write rows as CSV.

    Raises:
        ResourceError: E-RES-002 if the disk refuses.
    """
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    replace_file(path, [text.getvalue().encode("utf-8", errors="surrogateescape")])


def format_score(metric: str | None, value: float | None) -> str:
    """Return a score as people read it: shares in percent, losses with four digits.

    >>> format_score("exact_match", 0.5), format_score("loss", 1.23456), format_score("loss", None)
    ('50.0 %', '1.235', '–')
    """
    if value is None:
        return "–"
    if metric in LOWER_IS_BETTER or not 0 <= value <= 1:
        return f"{value:.4g}"
    return f"{100 * value:.1f} %"


def summary_table(records: Sequence[RunRecord]) -> Table:
    """Return the summary for a terminal; the best score stands out."""
    from rich.table import Table
    from rich.text import Text

    rows = summary_rows(records)
    metric = rows[0].metric if rows else None
    shown = [row.score for row in rows if row.score is not None]
    best = (min if metric in LOWER_IS_BETTER else max)(shown, default=None)
    table = Table(title=f"{len(rows)} run{'s' if len(rows) != 1 else ''}", title_justify="left")
    table.add_column("run", overflow="fold")
    table.add_column("method")
    table.add_column("seed", justify="right")
    with_before = any(row.score_before is not None for row in rows)
    label = metric or "validation loss"
    for name in [*([f"{label} before"] if with_before else []), f"{label} after" if with_before else label]:
        table.add_column(name, justify="right")
    for name in ("trained", "peak planned", "peak measured", "time", "state"):
        table.add_column(name, justify="right")
    for row in rows:
        score = format_score(metric, row.score) if metric else format_score("loss", row.best_validation_loss)
        style = "bold green" if row.score is not None and row.score == best and len(rows) > 1 else ""
        table.add_row(
            Text(row.run),  # not markup: a folder may be called [red]
            Text(marked(row.method, row.fidelity) if row.method else "–"),
            _or_dash(row.seed, str),
            *([format_score(metric, row.score_before)] if with_before else []),
            Text(score, style=style),
            _or_dash(row.trained_parameters, format_count),
            _or_dash(row.planned_peak_bytes, format_bytes),
            _or_dash(row.measured_peak_bytes, format_bytes),
            _or_dash(row.seconds, format_seconds),
            row.outcome,
        )
    return table


def _or_dash(value: Any, form: Any) -> str:
    return "–" if value is None else str(form(value))
