"""`subspace validate`: check recipes without torch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]


def verb(
    target: Annotated[Path, typer.Argument(help="A recipe, or a folder of recipes.")],
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    show: Annotated[bool, typer.Option("--show", help="Print the resolved recipe.")] = False,
    debug: options.Debug = False,
) -> None:
    """Check one recipe, or all in a folder; needs no model, no data and no torch."""
    import sys

    from subspace.core.errors import SubspaceError
    from subspace.pipeline.resolve import recipe_paths, resolve
    from subspace.runs.redaction import redact

    failures: list[SubspaceError] = []
    paths = recipe_paths(target)
    for path in paths:
        try:
            config, notes = resolve(path, overrides or ())
        except SubspaceError as error:
            failures.append(error)
            others, error.others = error.others, ()
            print("\n  ".join([f"wrong {path}", *(redact(str(each)) for each in (error, *others))]), file=sys.stderr)
            continue
        print(f"ok    {path}")
        for note in notes:
            print(f"  note: {note}")
        if show:
            print(config.to_yaml())
    if failures:
        print(f"{len(failures)} of {len(paths)} recipes are wrong", file=sys.stderr)
        raise typer.Exit(max(error.exit_status for error in failures))
