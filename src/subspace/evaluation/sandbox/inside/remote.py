"""Objects of the candidate as the judge sees them.

Calling one, reading or setting an attribute, its length, its items and its text ask the candidate, whose answers are
plain data. Nothing that could let an object decide a test by itself is forwarded: no comparison, arithmetic, truth
value or membership; two names of one object are equal, and nothing else is.
"""

from __future__ import annotations

import builtins
from collections.abc import Iterator
from typing import Any

from .codec import ClosedError, decode, encode, receive, send

__all__ = ["LeftError", "Link", "Remote", "UnsendableError", "remote_name"]


class LeftError(BaseException):
    """The program ended itself; no `except Exception` of a test may take that for an error it expects."""


class UnsendableError(BaseException):
    """A test hands the program an object that exists on this side only."""


class Link:
    """The way to the candidate: one request, one answer."""

    def __init__(self, requests: int, answers: int) -> None:
        self._requests, self._answers = requests, answers
        self._broken: BaseException | None = None

    def require_whole(self) -> None:
        """Raise what broke the way to the candidate, if a test has kept it to itself."""
        if self._broken is not None:
            raise self._broken

    def load(self, source: str) -> None:
        """Run the program."""
        self._ask("load", source)

    def named(self, name: str) -> Any:
        """Return what the program calls `name`."""
        return self._value(self._ask("name", name)[0])

    def ask(self, act: str, handle: int, *values: Any) -> Any:
        """Return what an act on an object gives."""
        return self._value(self._ask(act, handle, *(self._form(value) for value in values))[0])

    def call(self, handle: int, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Call an object, and do to the arguments what it did to its copies."""
        value, *changed = self._ask("call", handle, self._form(list(arguments)), self._form(named))
        for change in changed:
            index, content = self._list(change, 2)
            if not isinstance(index, int) or not 0 <= index < len(arguments):
                raise ClosedError("not an answer")
            _overwrite(arguments[index], self._value(content))
        return self._value(value)

    def _ask(self, act: str, *rest: Any) -> list[Any]:
        self.require_whole()
        try:
            return self._answer(act, *rest)
        except (ClosedError, LeftError) as error:
            self._broken = error
            raise

    def _answer(self, act: str, *rest: Any) -> list[Any]:
        send(self._requests, [act, *rest])
        kind, *content = self._list(receive(self._answers), 1)
        if kind == "value" and content:
            return content
        if kind == "raise":
            name, base, text = self._list(content, 3)
            raise _exception(str(name), str(base), str(text))
        raise ClosedError("not an answer")

    @staticmethod
    def _list(message: Any, size: int) -> list[Any]:
        if not isinstance(message, list) or len(message) < size:
            raise ClosedError("not an answer")
        return message

    def _form(self, value: Any) -> Any:
        return encode(value, self._handle)

    def _handle(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return value._handle
        self._broken = UnsendableError(f"a {type(value).__name__} cannot be handed to the program")
        raise self._broken

    def _value(self, message: Any) -> Any:
        return decode(message, lambda handle: Remote(self, handle))


def _overwrite(argument: Any, content: Any) -> None:
    if isinstance(argument, list | bytearray) and isinstance(content, type(argument)):
        argument[:] = content
    elif isinstance(argument, dict | set) and isinstance(content, type(argument)):
        argument.clear()
        argument.update(content)


def _exception(name: str, base: str, text: str) -> BaseException:
    if base in ("SystemExit", "KeyboardInterrupt", "GeneratorExit"):
        return _marked(LeftError(text), name)
    kind = getattr(builtins, base, Exception)
    kinds = kind.__mro__ if isinstance(kind, type) and issubclass(kind, Exception) else (Exception,)
    error = next(made for each in kinds if (made := _made(each, text)) is not None)
    return _marked(error, name)


def _marked(error: BaseException, name: str) -> BaseException:
    error.__dict__["remote_name"] = name if name.isidentifier() else "Exception"
    return error


def _made(kind: type, text: str) -> Exception | None:
    """Return an exception with a text; None from classes whose constructor wants more."""
    try:
        made = kind(text)
    except TypeError:
        return None
    return made if isinstance(made, Exception) else None


def remote_name(error: BaseException) -> str:
    """Return the name of an error's class, in the program if it was raised there."""
    return str(error.__dict__.get("remote_name", type(error).__name__))


class Remote:
    """An object of the candidate."""

    __slots__ = ("_handle", "_link")

    def __init__(self, link: Link, handle: int) -> None:
        object.__setattr__(self, "_link", link)
        object.__setattr__(self, "_handle", handle)

    def _ask(self, act: str, *values: Any) -> Any:
        return self._link.ask(act, self._handle, *values)

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self._link.call(self._handle, arguments, named)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # protocols that Python looks for by itself
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Remote) and other._handle == self._handle

    def __hash__(self) -> int:
        return hash(self._handle)

    def __iter__(self) -> Iterator[Any]:
        found = self._ask("iter")
        # The iterator of a list is not plain data either, so this is a Remote unless the candidate lies.
        return found if isinstance(found, Remote) else iter(found)

    def __next__(self) -> Any:
        return self._ask("next")

    def __len__(self) -> int:
        return int(self._ask("len"))

    def __bool__(self) -> bool:
        return True

    def __contains__(self, item: object) -> bool:
        return any(each is item or each == item for each in self)

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __str__(self) -> str:
        return str(self._ask("text"))

    def __repr__(self) -> str:
        return f"<an object of the program, {self._handle}>"
