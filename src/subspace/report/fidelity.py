"""What of a method was run: `paper`, the published method, or `reference`, the official code step for step."""

from __future__ import annotations

import re
from collections.abc import Iterable

__all__ = ["PAPER", "joined", "marked"]

PAPER = "paper"
"""The fidelity that goes without saying: a label that names none means the published method."""


def marked(label: str, fidelity: str | None) -> str:
    """Return the label with the fidelity behind it, unless that is `paper` or unknown, or the label says it itself.

    >>> marked("galore", "reference"), marked("galore", "paper"), marked("galore (reference)", "reference")
    ('galore, fidelity reference', 'galore', 'galore (reference)')
    """
    if fidelity is None or fidelity == PAPER or _says(label, fidelity):
        return label
    return f"{label}, fidelity {fidelity}"


def joined(found: Iterable[str | None]) -> str | None:
    """Return the one fidelity of several runs, all of them if there are more, None where no run has any.

    >>> joined(["paper", None, "paper"]), joined(["reference", "paper"]), joined([None])
    ('paper', 'paper and reference', None)
    """
    return " and ".join(sorted({fidelity for fidelity in found if fidelity is not None})) or None


def _says(label: str, fidelity: str) -> bool:
    return re.search(rf"(?<![^\W_]){re.escape(fidelity)}(?![^\W_])", label, re.IGNORECASE) is not None
