"""`subspace data`: look at rows as the model will see them, and make sample data."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]

_MOST_ROWS = 9
"""Bad rows that a preview tells of beside the first."""

verb = typer.Typer(help="Look at data, or make some.", rich_markup_mode=None)


@verb.command("preview")
def preview(
    given: options.Given = None,
    config: options.ConfigPath = None,
    model: options.Model = None,
    data: options.Data = None,
    method: options.MethodName = None,
    samples: Annotated[int, typer.Option("--samples", min=1, help="Rows to show.")] = 3,
    debug: options.Debug = False,
) -> None:
    """Show rendered rows with the loss mask in colour, a histogram of lengths, and what truncation cuts."""
    run_config, notes, document = options.load_run_config(given, config=config, model=model, data=data, method=method)
    from subspace.cli.console import output_console, quiet_libraries, show_notes
    from subspace.cli.preview import render_preview

    show_notes(notes)
    quiet_libraries()
    from subspace.data.preview import make_preview
    from subspace.models.load import load_tokenizer
    from subspace.pipeline.resolve import placed

    with placed(document, run_config), _other_rows():
        tokenizer = load_tokenizer(run_config.model)
        found = make_preview(run_config.data, tokenizer, task=run_config.model.task, num_samples=samples)
    show_notes(found.report.notes())
    output_console(soft_wrap=False).print(render_preview(found))


@contextlib.contextmanager
def _other_rows() -> Iterator[None]:
    """Print what is wrong with further rows before the first error ends the program."""
    from subspace.core.errors import DataError
    from subspace.runs.redaction import redact

    try:
        yield
    except DataError as error:
        for other in error.others[:_MOST_ROWS]:
            print(redact(str(other)), file=sys.stderr)
        raise


@verb.command("prepare")
def prepare_samples(
    out: Annotated[Path, typer.Argument(help="File to write: .jsonl or .json, alpaca format.")],
    rows: Annotated[int, typer.Option("--rows", min=1, help="How many rows.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", min=0)] = 0,
    debug: options.Debug = False,
) -> None:
    """Write sample instruction data (alpaca format) to try a model and a recipe on."""
    import json

    from subspace.core.errors import UsageError
    from subspace.data.tasks import sample_instructions
    from subspace.runs.durable import replace_file

    options.require_new_file(out, "out")
    if out.suffix not in (".json", ".jsonl"):
        raise UsageError(
            "E-CLI-001", where="out", found=f"a file named {out.name}", expected=".jsonl or .json at its end"
        )
    made = sample_instructions(rows, seed)
    if out.suffix == ".json":
        text = json.dumps(made, indent=1, ensure_ascii=False)
    else:
        text = "\n".join(json.dumps(row, ensure_ascii=False) for row in made)
    replace_file(out, [text.encode() + b"\n"])
    print(
        f"wrote {len(made)} rows to {out}; look at them: subspace data preview --model builtin/tiny-llama --data {out}"
    )
