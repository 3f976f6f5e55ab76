"""The process that holds the tests: it asks the candidate, compares plain data, and alone can write the verdict.

    verdict   {"nonce": ...} after the last line of the tests has run, or {"error": name, "message": text}

The nonce is read after the tests: until then it is not in this process either.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from .codec import ClosedError, receive
from .remote import Link, UnsendableError, remote_name

__all__ = ["judge"]

_LONGEST_TEXT = 300


def judge(job: int, verdict: int, link: Link, farewell: Callable[[], str]) -> None:
    """Run one job and write its verdict.

    Args:
        job: Where two messages come from: {program, preamble, tests, names} and, later, the nonce.
        verdict: Where the verdict goes.
        link: The way to the candidate.
        farewell: Says how a candidate that is gone has ended.
    """
    task = receive(job)
    try:
        _run(task, link)
        outcome = {"nonce": receive(job)}
    except ClosedError as error:
        outcome = {"error": "ended", "message": f"{farewell()}: {error}"}
    except UnsendableError as error:
        outcome = {"error": "unsendable", "message": str(error)}
    except BaseException as error:
        outcome = {"error": remote_name(error), "message": _text(error)}
    line = {name: str(value)[:_LONGEST_TEXT] for name, value in outcome.items()}
    os.write(verdict, json.dumps(line).encode("ascii") + b"\n")


def _run(task: dict[str, Any], link: Link) -> None:
    """Run the program there and the tests here; return only if no line of either has raised."""
    namespace: dict[str, Any] = {"__name__": "tests"}
    exec(compile(task["preamble"], "<preamble>", "exec"), namespace)
    link.load(task["program"])
    namespace |= {name: link.named(name) for name in task["names"]}
    exec(compile(task["tests"], "<tests>", "exec"), namespace)
    link.require_whole()


def _text(error: BaseException) -> str:
    try:
        return str(error)
    except BaseException:
        return ""
