"""Tables that verbs print."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from subspace.core.units import format_bytes, format_count, format_seconds

if TYPE_CHECKING:
    from subspace.plan.fit import Fit
    from subspace.report.compare import Comparison

__all__ = ["comparison_lines", "demo_table", "fit_table", "fitting_command", "run_table"]


def demo_table(base: Mapping[str, float], results: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Return scores before and after, trained parameters, peak memory and seconds of each method.

    Args:
        base: Scores of the untuned model.
        results: Method to the summaries of its runs, one a seed.
    """
    table = Table(title="word problems, exact match on held-out numbers, mean over seeds", title_justify="left")
    table.add_column("method")
    for name in ("before", "after", "gain", "trained", "peak memory", "a run"):
        table.add_column(name, justify="right", no_wrap=True)
    before = 100 * base["exact_match"]
    for method, summaries in results.items():
        after = 100 * fmean(summary["metrics"]["exact_match"] for summary in summaries)
        table.add_row(
            method,
            f"{before:.1f} %",
            f"{after:.1f} %",
            f"{after - before:+.1f}",
            format_count(summaries[0]["trained_parameters"]),
            format_bytes(fmean(summary["measured_peak_bytes"] for summary in summaries)),
            format_seconds(fmean(summary["seconds"] for summary in summaries)),
        )
    return table


def run_table(summary: Mapping[str, Any]) -> Table:
    """Return planned against measured figures and the scores of one run."""
    table = Table(title="run", title_justify="left")
    table.add_column("figure")
    for name in ("planned", "measured"):
        table.add_column(name, justify="right")
    peaks = format_bytes(summary["planned_peak_bytes"]), format_bytes(summary["measured_peak_bytes"])
    table.add_row("peak memory", *peaks)
    table.add_row("trained parameters", format_count(summary["trained_parameters"]), "–")
    table.add_row("optimizer steps", str(summary["planned_steps"]), str(summary["steps"]))
    forecast = summary["forecast_seconds"]
    expected = format_seconds(forecast) if forecast is not None else ""
    table.add_row("training time", expected, format_seconds(summary["seconds"]))
    for name, value in summary["metrics"].items():
        table.add_row(name, "", f"{value:.4f}")
    return table


def fit_table(fit: Fit) -> Table:
    """Return every change that was planned, with the peak that it leads to on top of those kept before it."""
    title = f"what makes it fit into {format_bytes(fit.limit_bytes)}"
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD)
    table.add_column("override, and what it costs", overflow="fold")
    table.add_column("predicted peak", justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    first = "fits" if fit.first_bytes <= fit.limit_bytes else "too much"
    table.add_row("the recipe as it is", format_bytes(fit.first_bytes), first)
    for trial in fit.trials:
        peak = "" if trial.peak_bytes is None else format_bytes(trial.peak_bytes)
        told = "refused" if trial.peak_bytes is None else "no gain" if not trial.kept else "too much"
        lines = "\n".join((*trial.overrides, f"  {trial.reason or trial.cost}"))
        table.add_row(
            Text(lines), peak, "fits" if trial.kept and trial.fits else told, style=None if trial.kept else "dim"
        )
    return table


def fitting_command(words: Sequence[str], overrides: Sequence[str], own_key: Callable[[str], str] = str) -> str:
    """Return the command that trains what `words` name, with overrides in place of those of the same keys.

    Args:
        words: What was given: recipe, options, overrides.
        overrides: What takes precedence.
        own_key: Returns our name of a dotted key.
    """
    replaced = {override.partition("=")[0] for override in overrides}
    kept = [word for word in words if own_key(word.partition("=")[0]) not in replaced]
    return shlex.join(["subspace", "train", *kept, *overrides])


def comparison_lines(made: Comparison) -> list[str]:
    """Return where the files of a comparison lie."""
    files = {
        "page": made.page,
        "plot": made.curves,
        "epochs": made.epochs,
        "subspaces": made.subspace,
        "summary": made.summary,
        "every number": made.tidy,
    }
    return [f"{name + ':':<14} {path}" for name, path in files.items() if path is not None]
