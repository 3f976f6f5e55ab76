"""Who can read runs that did not come from here; `load` asks each in turn after our own run folders.

A reader is one entry of `READERS`. It must be cheap to ask: it is asked about every file and folder on the way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from subspace.report.foreign import KINDS
from subspace.report.record import RunRecord

__all__ = ["READERS", "Reader"]


@dataclass(frozen=True)
class Reader:
    """One foreign kind of result.

    Attributes:
        name: What the results are called in notes, e.g. "trainer_state.json".
        recognises: Whether a file or folder holds one run of this kind; looks inside only where its name fits.
        read: Returns the run under the name it has beside others; its notes name what cannot be read.
    """

    name: str
    recognises: Callable[[Path], bool]
    read: Callable[[Path, str], RunRecord]


READERS: list[Reader] = [Reader(name, kind.recognises, kind.read) for name, kind in KINDS.items()]
