"""How a preview of data looks in a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.text import Text

from subspace.core.units import format_count

if TYPE_CHECKING:
    from subspace.data.preview import Preview, Sample
    from subspace.data.report import Report

__all__ = ["render_preview"]

_IN_LOSS = "bold green"
_BAR_WIDTH = 40


def render_preview(preview: Preview) -> RenderableType:
    """Return samples with the loss in colour (and in brackets, for terminals without one), lengths, and counts."""
    parts: list[RenderableType] = [_sample(sample) for sample in preview.samples]
    return Group(*parts, _histogram(preview.report), _counts(preview.report))


def _sample(sample: Sample) -> Panel:
    body = Text()
    for span in sample.spans:
        body.append(f"⟦{span.text}⟧" if span.in_loss else span.text, style=_IN_LOSS if span.in_loss else "")
    if sample.label is not None:
        body.append(f"\n-> {sample.label}", style=_IN_LOSS)
    num_in_loss = sum(span.num_tokens for span in sample.spans if span.in_loss)
    cut = f", {sample.num_cut_tokens} cut" if sample.num_cut_tokens else ""
    about = f"{sample.place}: {sample.num_tokens} tokens, {num_in_loss} in the loss{cut}"
    return Panel(body, title=about, title_align="left", subtitle="⟦in the loss⟧", subtitle_align="right")


def _histogram(report: Report) -> Text:
    top = max((count for _, _, count in report.histogram), default=1)
    width = max((len(f"{low}-{high}") for low, high, _ in report.histogram), default=0)
    text = Text("tokens in a row\n", style="bold")
    for low, high, count in report.histogram:
        bar = "█" * max(round(_BAR_WIDTH * count / top), 1 if count else 0)
        text.append(f"{f'{low}-{high}':>{width}} ", style="dim")
        text.append(f"{bar} {count}\n", style="not bold")
    return text


def _counts(report: Report) -> Text:
    other = "held out to evaluate on" if report.split == "train" else "trained on"
    elsewhere = f", {report.num_elsewhere} {other}" if report.num_elsewhere else ""
    return Text(
        f"{report.num_examples} of {report.num_rows_read} rows in use{elsewhere} (format {report.format}), "
        f"{report.num_sequences} sequences of at most {report.max_length} tokens, longest {report.longest}\n"
        f"{format_count(report.num_tokens)} tokens, {format_count(report.num_target_tokens)} in the loss; "
        f"truncation cuts {report.num_cut_tokens} tokens "
        f"of {report.num_truncated} sequences ({report.share_cut:.2%} of all)"
    )
