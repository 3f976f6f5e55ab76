"""Quantities as people read and write them."""

from __future__ import annotations

import re

from subspace.core.errors import UsageError

__all__ = ["format_bytes", "format_count", "format_seconds", "parse_bytes"]

_BINARY = ("B", "KiB", "MiB", "GiB", "TiB")
_FACTORS = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3, "T": 1024**4}


def format_bytes(num_bytes: float) -> str:
    """Return a size in binary units.

    >>> format_bytes(1536), format_bytes(12)
    ('1.50 KiB', '12 B')
    """
    value = float(num_bytes)
    for unit in _BINARY:
        if abs(value) < 1024 or unit == _BINARY[-1]:
            break
        value /= 1024
    return f"{value:.0f} B" if unit == "B" else f"{value:.2f} {unit}"


def format_count(count: float) -> str:
    """Return a count with a decimal suffix.

    >>> format_count(4194304), format_count(12), format_count(1.4e13)
    ('4.19M', '12', '14.00T')
    """
    value = float(count)
    for suffix in ("", "K", "M", "G", "T", "P"):
        if abs(value) < 1000 or suffix == "P":
            break
        value /= 1000
    return f"{value:.0f}" if suffix == "" else f"{value:.2f}{suffix}"


def format_seconds(seconds: float) -> str:
    """Return a duration.

    >>> format_seconds(4.2), format_seconds(75), format_seconds(7384)
    ('4.2 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def parse_bytes(text: str, where: str = "size") -> int:
    """Return the bytes that a size like `4GB`, `1.5 GiB` or `800M` means (binary factors).

    Args:
        text: A number and its unit.
        where: What an error names as its place.

    Raises:
        UsageError: E-CLI-001 if the text is not a size, or a number without a unit.

    >>> parse_bytes("4GB") == 4 * 1024**3
    True
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(?:([KMGT])i?B?|B)\s*", text, flags=re.IGNORECASE)
    if match is None:
        bare = text.strip()
        number = re.fullmatch(r"\d+(?:\.\d+)?", bare) is not None
        raise UsageError(
            "E-CLI-001",
            where=where,
            found=f"{text!r}, a number without a unit" if number else repr(text),
            expected="a size such as 4GB or 800M",
            action=f"Did you mean {bare}GB?" if number else "",
        )
    return int(float(match[1]) * _FACTORS[(match[2] or "").upper()])
