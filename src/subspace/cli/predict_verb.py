"""`subspace predict`: answers to one text or a file of them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from subspace.cli import options

__all__ = ["verb"]


def verb(
    target: Annotated[str, typer.Argument(help="A finished run, a model folder, a hub id, or builtin/tiny-llama.")],
    text: Annotated[str | None, typer.Argument(help="One prompt, or one text to classify.")] = None,
    pair: Annotated[str | None, typer.Option("--pair", help="The second text of a pair to classify.")] = None,
    file: Annotated[
        Path | None, typer.Option("--file", help="A file of inputs: txt, json, jsonl, csv, parquet.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="JSON file for the results.")] = None,
    system: Annotated[str | None, typer.Option("--system", help="System turn of chat models.")] = None,
    max_new_tokens: Annotated[int, typer.Option("--max-new-tokens", min=1)] = 64,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1)] = 16,
    device: Annotated[str, typer.Option("--device", help="Torch device.")] = "cpu",
    debug: options.Debug = False,
) -> None:
    """Answer one text, or every input of a file."""
    import json

    from subspace.cli.console import ProgressListener, quiet_libraries
    from subspace.core.errors import UsageError
    from subspace.pipeline.loaded import load_result
    from subspace.pipeline.predict import Question, predict, read_questions, write_results

    if (text is None) == (file is None):
        raise UsageError(
            "E-CLI-004",
            where="predict",
            found="no text and no --file" if text is None else "a text beside --file",
            expected="a text, or --file FILE",
        )
    if out is not None:
        options.require_new_file(out, "--out")
    questions = read_questions(file) if file is not None else [Question(text or "", text_pair=pair)]
    quiet_libraries()
    loaded = load_result(target, device=device)
    with ProgressListener() as listener:
        results = predict(
            loaded,
            questions,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            system=system,
            progress=(lambda done, total: listener.on_progress("predict", done, total)) if file else None,
        )
    if out is not None:
        write_results(results, out)
        print(f"wrote {out}")
    elif file is None:
        print(results[0].get("output", results[0].get("label")))
    else:
        print(json.dumps(results, indent=2, ensure_ascii=False))
