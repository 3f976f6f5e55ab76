"""`subspace evaluate`: score a finished run on its own rows, or any number of runs and models on tasks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from subspace.cli import options

if TYPE_CHECKING:
    from subspace.pipeline.evaluate_tasks import Outcome

__all__ = ["verb"]

_ALLOW = "--allow-code-execution"
Given = Annotated[
    list[str],
    typer.Argument(
        metavar="PATHS... [KEY=VALUE]...",
        help="A finished run and overrides of data and evaluation; with --tasks: runs, folders of runs, model folders, "
        "hub ids.",
    ),
]
Tasks = Annotated[
    list[str] | None,
    typer.Option("--tasks", help="Tasks with commas between, e.g. gsm8k,mmlu/anatomy,harness:arc_easy."),
]
Sources = Annotated[
    list[str] | None,
    typer.Option("--source", help="task=PATH, a local file or folder; task:fewshot=PATH for the shots."),
]
AllowCode = Annotated[bool, typer.Option(_ALLOW, help="Run what a model wrote, in a sandbox (humaneval, mbpp).")]
AcceptUnsandboxed = Annotated[
    bool, typer.Option("--i-accept-unsandboxed", help="The same where this machine denies namespaces.")
]
NumSamples = Annotated[int, typer.Option("--num-samples", min=1, help="Programs per problem, for pass@k.")]
Temperature = Annotated[float | None, typer.Option("--temperature", min=0, help="Of their sampling; 0.8 if not given.")]
Name = Annotated[str, typer.Option("--name", help="Under which scores on a run's own rows are kept.")]


def verb(
    given: Given,
    tasks: Tasks = None,
    source: Sources = None,
    limit: Annotated[int | None, typer.Option("--limit", min=1, help="The first so many documents of a task.")] = None,
    num_fewshot: Annotated[int | None, typer.Option("--num-fewshot", min=0, help="Shots before a question.")] = None,
    out: Annotated[Path, typer.Option("--out", help="Where results on tasks are collected.")] = Path("eval_results"),
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Inputs at once, on tasks.")] = 32,
    allow_code_execution: AllowCode = False,
    i_accept_unsandboxed: AcceptUnsandboxed = False,
    num_samples: NumSamples = 1,
    temperature: Temperature = None,
    name: Name = "validation",
    device: Annotated[str, typer.Option("--device", help="Torch device.")] = "cpu",
    json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    debug: options.Debug = False,
) -> None:
    """Score a finished run again, or on other rows: `subspace evaluate RUN data.validation=test --name test`.

    With --tasks: `subspace evaluate outputs/ --tasks gsm8k,mmlu/anatomy` scores every finished run under outputs/.
    """
    if tasks is None:
        _refuse({"--source": source, "--limit": limit, "--num-fewshot": num_fewshot, _ALLOW: allow_code_execution})
        _own_rows(given, name, device, json)
        return
    from subspace.pipeline.code_execution import CodeExecution
    from subspace.pipeline.evaluate_tasks import Request, evaluate_tasks, parse_sources

    request = Request(
        paths=tuple(given),
        tasks=tuple(part.strip() for text in tasks for part in text.split(",") if part.strip()),
        sources=parse_sources(source or ()),
        num_fewshot=num_fewshot,
        limit=limit,
        out=out,
        device=device,
        batch_size=batch_size,
        code=CodeExecution(allow_code_execution, i_accept_unsandboxed, num_samples, temperature),
    )
    from subspace.cli.console import quiet_libraries
    from subspace.cli.evaluation_progress import EvaluationProgress

    quiet_libraries()
    with EvaluationProgress() as listener:
        outcomes = evaluate_tasks(request, listener)
    _show(outcomes, json)
    if any(outcome.state == "failed" for outcome in outcomes):
        raise typer.Exit(1)


def _refuse(options_of_tasks: dict[str, object]) -> None:
    """Refuse options that only tasks read.

    Raises:
        UsageError: E-CLI-004.
    """
    from subspace.core.errors import UsageError

    for option, value in options_of_tasks.items():
        if value is not None and value is not False:
            raise UsageError("E-CLI-004", where=option, found="no --tasks", action="Name tasks, or leave it out.")


def _own_rows(given: Sequence[str], name: str, device: str, json: bool) -> None:
    """Score one run on the rows of its recipe."""
    import json as json_format

    from subspace.cli.console import ProgressListener, quiet_libraries
    from subspace.pipeline.evaluate import evaluate_run

    run, overrides = Path(given[0]), list(given[1:])
    options.split_given(["x", *overrides])  # says what is no override
    quiet_libraries()
    with ProgressListener() as listener:
        metrics = evaluate_run(
            run,
            overrides,
            name=name,
            device=device,
            progress=lambda done, total: listener.on_progress("evaluate", done, total),
        )
    if json:
        print(json_format.dumps(metrics, indent=2))
        return
    wide = max(map(len, metrics), default=0)
    for metric, value in metrics.items():
        print(f"{metric:<{wide}}  {value:.4f}")


def _show(outcomes: Sequence[Outcome], json: bool) -> None:
    """Print what became of every task on every model, failures at the end."""
    import dataclasses
    import json as json_format
    import sys

    if json:
        print(json_format.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=2, default=dict))
    else:
        wide = max(len(outcome.model) for outcome in outcomes)
        for outcome in outcomes:
            scores = "  ".join(f"{metric} {value:.4f}" for metric, value in outcome.metrics.items())
            kept = "  (done before)" if outcome.state == "kept" else ""
            print(f"{outcome.model:<{wide}}  {outcome.split:<24}  {scores or outcome.state}{kept}")
    failures: dict[tuple[str, str], list[str]] = {}
    for outcome in outcomes:
        if outcome.error is not None:
            failures.setdefault((outcome.model, outcome.error), []).append(outcome.split)
    for (model, error), splits in failures.items():
        print(f"failed: {model} on {', '.join(splits)}: {error}", file=sys.stderr)
