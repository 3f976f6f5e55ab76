"""The process that runs the program under test: it loads the program and answers calls, and knows nothing else.

Tests, expected values and the nonce never enter this process, so there is nothing in it worth reading, and whatever the
program does to this interpreter changes only the data that it answers.
"""

from __future__ import annotations

import operator
import os
import sys
import types
from collections.abc import Callable
from typing import Any

from .codec import ClosedError, decode, encode, receive, send

__all__ = ["serve"]

_MODULE = "program"
_LONGEST_TEXT = 500
_ACTS: dict[str, Callable[..., Any]] = {
    "get": getattr,
    "set": setattr,
    "iter": iter,
    "next": next,
    "len": len,
    "item": operator.getitem,
    "text": str,
}


def serve(requests: int, answers: int) -> None:
    """Answer requests until the judge is gone.

    A request is [act, ...]; an answer ["value", v], ["value", v, [index, argument] ...] for arguments that were changed
    in place, or ["raise", name, base, text] where `base` is the nearest built-in exception.
    """
    program = types.ModuleType(_MODULE)
    sys.modules[_MODULE] = program
    _forget_ourselves()
    held: dict[int, Any] = {}
    while True:
        try:
            act, *rest = receive(requests)
        except ClosedError:
            return
        try:
            answer = _perform(act, rest, program, held)
        except BaseException as error:  # SystemExit too is an answer
            answer = _raised(error)
        try:
            send(answers, answer)
        except ClosedError:
            return
        except BaseException as error:  # an answer that JSON cannot hold
            send(answers, _raised(error))


def _forget_ourselves() -> None:
    """Leave nothing of ours to import, so that a program finds the modules it would find anywhere."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "inside"]:
        del sys.modules[name]
    os.environ.clear()  # of what the interpreter itself puts there
    sys.argv[:] = [""]
    sys.orig_argv[:] = [""]


def _perform(act: str, rest: list[Any], program: types.ModuleType, held: dict[int, Any]) -> list[Any]:
    def handle(value: Any) -> int:
        held[id(value)] = value
        return id(value)

    def plain(value: Any) -> Any:
        return decode(value, lambda name: held[name])

    if act == "load":
        exec(compile(rest[0], "<program>", "exec"), program.__dict__)
        return ["value", None]
    if act == "name":
        name = rest[0]
        if name not in program.__dict__:
            raise NameError(f"name {name!r} is not defined")
        return ["value", encode(program.__dict__[name], handle)]
    target, *values = held[rest[0]], *(plain(each) for each in rest[1:])
    if act == "call":
        arguments, named = values
        return _call(target, arguments, named, handle)
    return ["value", encode(_ACTS[act](target, *values), handle)]


def _call(target: Any, arguments: list[Any], named: dict[str, Any], handle: Callable[[Any], int]) -> list[Any]:
    before = [encode(each, handle) for each in arguments]
    value = encode(target(*arguments, **named), handle)
    after = [encode(each, handle) for each in arguments]
    return ["value", value, *([i, new] for i, (old, new) in enumerate(zip(before, after, strict=True)) if old != new)]


def _raised(error: BaseException) -> list[Any]:
    base = next(each.__name__ for each in type(error).__mro__ if each.__module__ == "builtins")
    try:
        told = error.args[0] if len(error.args) == 1 and isinstance(error.args[0], str) else error
        text = str(told)[:_LONGEST_TEXT]
    except BaseException:
        text = ""
    return ["raise", type(error).__name__[:_LONGEST_TEXT], base, text]
