"""Values between judge and candidate, as JSON in frames: plain data only, so that nothing a candidate sends can act.

A value of a subclass of a plain type (Counter, namedtuple, IntEnum, or an int with a dishonest `__eq__`) arrives as the
plain type. Anything else arrives as a handle, an opaque name of an object that stays where it is.

    frame   4 bytes of length, big-endian; UTF-8 JSON
    value   null, true, false, string, number, list as they are; everything else {tag: content}
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

__all__ = ["ClosedError", "decode", "encode", "receive", "send"]

_LARGEST_FRAME = 8 << 20
_LARGEST_PLAIN_INT = 1 << 53


class ClosedError(BaseException):
    """The other side is gone or sends what no side sends; no `except Exception` of a test may take that as its own."""


def send(descriptor: int, message: Any) -> None:
    """Write one frame.

    Raises:
        ClosedError: If nobody reads any more, or the message is too large.
    """
    # A lone surrogate, which a str may hold and UTF-8 may not, travels as an ASCII escape.
    body = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(body) > _LARGEST_FRAME:
        raise ClosedError("a value too large to send")
    rest = memoryview(len(body).to_bytes(4, "big") + body)
    try:
        while rest:
            rest = rest[os.write(descriptor, rest) :]
    except OSError as error:
        raise ClosedError(str(error)) from None


def receive(descriptor: int) -> Any:
    """Read one frame.

    Raises:
        ClosedError: At the end of the stream, and if what comes is no frame.
    """
    size = int.from_bytes(_exactly(descriptor, 4), "big")
    if size > _LARGEST_FRAME:
        raise ClosedError("a frame too large")
    try:
        return json.loads(_exactly(descriptor, size))
    except (ValueError, RecursionError):
        raise ClosedError("not a message") from None


def _exactly(descriptor: int, size: int) -> bytes:
    parts = []
    while size:
        try:
            part = os.read(descriptor, min(size, 1 << 20))
        except OSError as error:
            raise ClosedError(str(error)) from None
        if not part:
            raise ClosedError("end of stream")
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def encode(value: Any, handle: Callable[[Any], Any]) -> Any:
    """Return the JSON form of a value; `handle` names an object that is not plain data."""
    if value is None or isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return value if abs(value) < _LARGEST_PLAIN_INT else {"int": f"{value:x}"}
    if isinstance(value, list):
        return [encode(item, handle) for item in value]
    if isinstance(value, dict):
        return {"dict": [[encode(key, handle), encode(item, handle)] for key, item in value.items()]}
    for tag, kind in (("tuple", tuple), ("set", set), ("frozenset", frozenset)):
        if isinstance(value, kind):
            return {tag: [encode(item, handle) for item in value]}
    if isinstance(value, bytes | bytearray):
        return {"bytes" if isinstance(value, bytes) else "bytearray": value.hex()}
    if isinstance(value, complex):
        return {"complex": [value.real, value.imag]}
    if isinstance(value, range):
        return {"range": [encode(part, handle) for part in (value.start, value.stop, value.step)]}
    name = f"{type(value).__module__}.{type(value).__qualname__}"
    if name in ("decimal.Decimal", "fractions.Fraction"):
        return {name: str(value)}
    return {"handle": handle(value)}


def decode(message: Any, resolve: Callable[[Any], Any]) -> Any:
    """Return the value of a JSON form; `resolve` gives what a handle stands for.

    Raises:
        ClosedError: If the form is none.
    """
    try:
        return _decode(message, resolve)
    except (ValueError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise ClosedError("not a value") from None


def _decode(message: Any, resolve: Callable[[Any], Any]) -> Any:
    if isinstance(message, list):
        return [_decode(item, resolve) for item in message]
    if not isinstance(message, dict):
        return message
    ((tag, content),) = message.items()
    if tag == "handle":
        return resolve(content)
    if tag == "int":
        return int(content, 16)
    if tag in ("bytes", "bytearray"):
        data = bytes.fromhex(content)
        return data if tag == "bytes" else bytearray(data)
    if tag == "decimal.Decimal":
        from decimal import Decimal

        return Decimal(content)
    if tag == "fractions.Fraction":
        from fractions import Fraction

        return Fraction(content)
    parts = [_decode(item, resolve) for item in content]
    if tag == "dict":
        return dict(parts)
    if tag == "complex":
        return complex(*parts)
    if tag == "range":
        return range(*parts)
    kinds: dict[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
    if tag not in kinds:
        raise ValueError(tag)
    return kinds[tag](parts)
