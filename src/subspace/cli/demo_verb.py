"""`subspace demo`: eight methods on the built-in model, three seeds each, in a few minutes and without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]


def verb(
    out: Annotated[
        Path,
        typer.Option("--out", help="Folder for the runs; a number is added where a finished one or another thing is."),
    ] = Path("outputs/demo"),
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=512, help="Worker processes; default: one for each GPU, else for each core."),
    ] = None,
    debug: options.Debug = False,
) -> None:
    """Train eight methods, from full to Flora, with three seeds; print a table and make the page with its verdict."""
    from subspace.cli.bench_verb import finish, run_matrix, show_comparison
    from subspace.cli.console import output_console, quiet_libraries
    from subspace.cli.tables import demo_table
    from subspace.config.load import document_from
    from subspace.experiments.cells import read_matrix
    from subspace.experiments.devices import default_workers
    from subspace.pipeline.demo import demo_matrix
    from subspace.runs.manifest import read_manifest

    quiet_libraries()
    result = run_matrix(read_matrix(document_from(demo_matrix())), _free(out), jobs or default_workers("auto"))
    summaries: dict[str, list[dict[str, object]]] = {}
    for run in result.runs:
        summaries.setdefault(run.parent.name, []).append(read_manifest(run)["summary"])
    before = next(iter(result.folder.glob("runs/*/*/before.json")), None)
    if summaries and before is not None:
        output_console().print(demo_table(json.loads(before.read_bytes()), summaries))
    show_comparison(result)
    finish(result)


def _free(folder: Path) -> Path:
    """Return `folder`, or the first of folder-2, folder-3 ... that is not there or holds a demonstration cut short."""
    candidate, number = folder, 2
    while candidate.exists() and not _is_cut_short(candidate):
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate


def _is_cut_short(folder: Path) -> bool:
    from subspace.pipeline.demo import demo_matrix
    from subspace.runs.bench_layout import BenchLayout

    try:
        found = json.loads(BenchLayout(folder).bench.read_bytes())
        return found["name"] == demo_matrix()["name"] and any(job["state"] != "finished" for job in found["jobs"])
    except (OSError, ValueError, KeyError, TypeError):
        return False
