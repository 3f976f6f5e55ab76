"""`subspace results`: runs in the file format of another tool."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["Format", "verb"]


class Format(StrEnum):
    """What results can be written as."""

    PEFT_SUITE = "peft-suite"


def verb(
    runs: Annotated[list[Path], typer.Argument(help="Run folders, of any age; a folder of runs counts as all in it.")],
    out: Annotated[Path, typer.Option("--out", help="Folder for the files.")],
    form: Annotated[
        Format, typer.Option("--format", help="peft-suite: JSON of the PEFT comparison suite.")
    ] = Format.PEFT_SUITE,
    debug: options.Debug = False,
) -> None:
    """Write runs as other people's tools write theirs, with seeds and the answer to every item."""
    from subspace.cli.console import show_notes
    from subspace.report.peft_suite import export_peft_suite

    written, notes = export_peft_suite(runs, out)
    show_notes(notes)
    print(f"wrote {len(written)} result{'s' if len(written) != 1 else ''} of the PEFT comparison suite to {out}")
