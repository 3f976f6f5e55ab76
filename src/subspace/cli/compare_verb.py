"""`subspace compare`: runs side by side."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["Language", "verb"]


class Language(StrEnum):
    """What the page opens in; it holds both."""

    EN = "en"
    ZH = "zh"


def verb(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run folders, of any age, benches, results of other tools; a folder counts as all in it."),
    ],
    out: Annotated[Path, typer.Option("--out", help="Folder for page, plots and tables; no run or bench.")] = Path(
        "comparison"
    ),
    reference: Annotated[
        str | None, typer.Option("--reference", help="Method that all others are held against; else all pairs.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="Metric that decides, for every task that has it.")
    ] = None,
    language: Annotated[Language, typer.Option("--language", help="Language that the page opens in.")] = Language.EN,
    debug: options.Debug = False,
) -> None:
    """Judge one or many runs: a verdict in words, one page, pictures and tables."""
    from subspace.cli.console import show_notes
    from subspace.cli.tables import comparison_lines
    from subspace.report.compare import compare

    made = compare(runs, out, language=language.value, reference=reference, metric=metric)
    show_notes(made.notes)
    for line in (*made.words(language.value), "", *comparison_lines(made)):
        print(line)
