"""The entry point: verbs, errors and exit statuses.

Every SubspaceError ends as one line on stderr and its exit status; a traceback is shown only with --debug.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import typer

from subspace import __version__
from subspace.core.errors import SubspaceError
from subspace.core.registry import nearest

__all__ = ["VERBS", "app", "main"]

VERBS: dict[str, tuple[str, ...]] = {
    "train": ("train",),
    "resume": ("resume",),
    "plan": ("plan",),
    "validate": ("validate",),
    "init": ("init",),
    "migrate": ("migrate",),
    "data": ("data",),
    "evaluate": ("evaluate", "eval"),
    "export": ("export", "merge"),
    "predict": ("predict",),
    "chat": ("chat",),
    "bench": ("bench",),
    "compare": ("compare",),
    "results": ("results",),
    "demo": ("demo",),
    "methods": ("methods",),
    "env": ("env",),
}
"""Module under `subspace.cli` to the names its verb answers to; each has a function or Typer app named `verb`."""

app = typer.Typer(
    name="subspace",
    help="Fine-tune language models by every low-rank and subspace method, exactly, and compare them fairly.",
    add_completion=False,
    no_args_is_help=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _register() -> None:
    for module, names in VERBS.items():
        verb = importlib.import_module(f"subspace.cli.{module}_verb").verb
        for index, name in enumerate(names):
            hidden = index > 0
            if isinstance(verb, typer.Typer):
                app.add_typer(verb, name=name, hidden=hidden)
            else:
                app.command(name, hidden=hidden)(verb)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and end the process with its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _tolerate_narrow_encodings()
    if given == ["--version"]:
        print(f"subspace {__version__}")
        raise SystemExit(0)
    _register_once()
    try:
        status = app(given, prog_name="subspace", standalone_mode=False) or 0
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where a reader that has left is no failure
    except SubspaceError as error:
        status = _told(error, given)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except BrokenPipeError:
        # The reader of our output has left (`| head`); what it read was right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    except typer.Exit as leave:
        status = leave.exit_code
    except typer.Abort:
        status = 130
    except Exception as error:  # the last line of defence: nobody sees a traceback unasked
        status = _usage_status(error, given) if hasattr(error, "format_message") else _unexpected(error, given)
    raise SystemExit(status)


def _register_once() -> None:
    if not app.registered_commands:
        _register()


def _told(error: SubspaceError, given: Sequence[str]) -> int:
    from subspace.runs.redaction import redact

    if "--debug" in given:
        traceback.print_exc()
    print(redact(str(error)), file=sys.stderr)
    return error.exit_status


def _usage_status(error: Exception, given: Sequence[str]) -> int:
    message: str = error.format_message()  # type: ignore[attr-defined]  # asked for by the caller
    names = [name for each in VERBS.values() for name in each]
    word = next((item for item in given if not item.startswith("-")), "")
    close = nearest(word, names) if word not in names else None
    hint = f" Did you mean `subspace {close}`?" if close and "Did you mean" not in message else ""
    if not word and "ommand" in message:
        message = f"no verb; expected one of {', '.join(VERBS)}"
    stop = "" if message.endswith((".", "?", "!")) else "."
    helped = f"subspace {word}" if word in names else "subspace"
    print(f"E-CLI-001 command line: {message}{stop}{hint} See `{helped} --help`.", file=sys.stderr)
    return 2


def _unexpected(error: Exception, given: Sequence[str]) -> int:
    from subspace.runs.redaction import redact

    if "--debug" in given:
        traceback.print_exc()
    text = redact(f"{type(error).__name__}: {error}".splitlines()[0])
    print(f"E-RUN-001 subspace: {text}. Run again with --debug for the traceback, and report it.", file=sys.stderr)
    return 1


def _tolerate_narrow_encodings() -> None:
    """Never fail on a character that the terminal cannot show."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None and hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")
