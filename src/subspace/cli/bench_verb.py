"""`subspace bench`: methods x tasks x models x seeds, on equal terms, ending in a verdict."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subspace.cli import options

if TYPE_CHECKING:
    from subspace.experiments.bench import BenchResult
    from subspace.experiments.cells import Matrix

__all__ = ["finish", "run_matrix", "show_comparison", "verb"]


def verb(
    given: Annotated[
        list[str], typer.Argument(metavar="MATRIX [KEY=VALUE]...", help="A matrix, then overrides such as seeds=[1,2].")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", help="Bench folder; what is done in it is kept. Default: outputs/<matrix>.")
    ] = None,
    jobs: Annotated[
        int | None,
        typer.Option("--jobs", min=1, max=512, help="Worker processes; default: one for each GPU, else for each core."),
    ] = None,
    threads: Annotated[int, typer.Option("--threads", min=1, max=512, help="Threads of each worker.")] = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the number of jobs, hours and disk space, and stop.")
    ] = False,
    debug: options.Debug = False,
) -> None:
    """Run a matrix: every arm on every task with every seed, its learning rate searched at equal cost."""
    from subspace.cli.console import quiet_libraries, show_notes
    from subspace.core.errors import UsageError
    from subspace.experiments.cells import read_matrix
    from subspace.experiments.devices import default_workers

    path, overrides = options.split_given(given)
    if path is None:
        raise UsageError("E-CLI-001", where="command line", found="no matrix", expected="subspace bench matrix.yaml")
    matrix = read_matrix(path, overrides)
    show_notes(matrix.notes)
    folder = out if out is not None else Path("outputs") / path.stem
    num_workers = jobs if jobs is not None else default_workers(matrix.cells[0].config.training.device)
    quiet_libraries()
    if matrix.budget.kind == "tokens":
        from subspace.experiments.token_budget import in_steps

        matrix = in_steps(matrix)
    if dry_run:
        _show_estimate(matrix, folder, num_workers, threads)
        return
    result = run_matrix(matrix, folder, num_workers, threads)
    show_comparison(result)
    finish(result)


def run_matrix(matrix: Matrix, folder: Path, num_workers: int, num_threads: int = 1) -> BenchResult:
    """Run what is not done of a matrix, with something to look at."""
    from subspace.cli.bench_view import BenchView
    from subspace.experiments.bench import Bench

    with BenchView() as view:
        return Bench(matrix, folder, num_workers, num_threads, view).run()


def show_comparison(result: BenchResult) -> None:
    """Make the page of what has ended; print its verdict and where it lies."""
    from subspace.cli.console import show_notes
    from subspace.cli.tables import comparison_lines
    from subspace.report.compare import compare
    from subspace.runs.bench_layout import BenchLayout

    if not result.runs:
        return
    made = compare([result.folder], BenchLayout(result.folder).comparison)
    show_notes(made.notes)
    for line in (*made.words(), "", *comparison_lines(made)):
        print(line)


def finish(result: BenchResult) -> None:
    """Say how it ended.

    Raises:
        SubspaceError: E-RUN-001 naming the jobs that failed.
    """
    from subspace.core.errors import SubspaceError
    from subspace.core.units import format_seconds

    done = result.num_jobs - len(result.failures)
    kept = f", {result.num_kept} of them before" if result.num_kept else ""
    print(f"bench folder: {result.folder}")
    print(f"bench: {done} of {result.num_jobs} jobs done{kept}; {format_seconds(result.seconds)}")
    if result.failures:
        for failure in result.failures:
            print(f"failed: {failure.job.label}: {failure.error}")
        names = ", ".join(failure.job.label for failure in result.failures[:3])
        more = f" and {len(result.failures) - 3} more" if len(result.failures) > 3 else ""
        raise SubspaceError(
            "E-RUN-001",
            where=str(result.folder),
            found=f"{len(result.failures)} jobs failed: {names}{more}",
            action="The same command tries them again; what is done is kept.",
        )


def _show_estimate(matrix: Matrix, folder: Path, num_workers: int, num_threads: int) -> None:
    from subspace.cli.bench_estimate import estimate_table
    from subspace.cli.console import error_console, output_console
    from subspace.experiments.estimate import estimate

    with error_console().status("planning") as status:
        found = estimate(matrix, folder, num_threads, lambda text: status.update(text))
    output_console(soft_wrap=False).print(estimate_table(found, num_workers))
