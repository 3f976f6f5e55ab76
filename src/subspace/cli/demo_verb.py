"""`subspace demo`: eight methods on the built-in model, in four minutes, without a network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]


def verb(
    out: Annotated[Path, typer.Option("--out", help="Folder for the runs; a number is added where it exists.")] = Path(
        "outputs/demo"
    ),
    debug: options.Debug = False,
) -> None:
    """Train eight methods on the built-in model and task, from full to Flora; print a table, draw a page and a plot."""
    import time

    from subspace.cli.console import ProgressListener, error_console, output_console, quiet_libraries

    quiet_libraries()
    from subspace import api
    from subspace.cli.tables import comparison_lines, demo_table
    from subspace.pipeline.demo import DEMO_METHODS, base_metrics, demo_config, keep_before
    from subspace.report.compare import compare

    start = time.monotonic()
    folder = _free(out)
    console = error_console()
    console.print("scoring the untuned base on 200 word problems with numbers that no run will see ...", style="dim")
    base = base_metrics(demo_config("lora", folder))
    results = {}
    for index, method in enumerate(DEMO_METHODS, start=1):
        with ProgressListener(f"[{index}/{len(DEMO_METHODS)}] {method}: ") as listener:
            results[method] = api.train(demo_config(method, folder), listeners=(listener,))
        keep_before(results[method].folder, base)
    made = compare([result.folder for result in results.values()], folder / "comparison")
    output_console().print(demo_table(base, results))
    for line in comparison_lines(made):
        print(line)
    print(f"demo: {time.monotonic() - start:.0f} s in all")


def _free(folder: Path) -> Path:
    """Return `folder`, or the first of folder-2, folder-3 ... that does not exist."""
    candidate, number = folder, 2
    while candidate.exists():
        candidate, number = folder.with_name(f"{folder.name}-{number}"), number + 1
    return candidate
