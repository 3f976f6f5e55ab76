"""What happened in a bench, one JSON line each: for people, and for the proof that nothing is done twice."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from subspace.runs.durable import disk_errors
from subspace.runs.plain_json import line
from subspace.runs.provenance import utc_now

__all__ = ["Journal"]


class Journal:
    """Appends to a file; a line is whole or absent.

    Raises:
        ResourceError: E-RES-002 if the file cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        with disk_errors(path):
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)

    def write(self, event: str, job: str, **fields: Any) -> None:
        """Append one record: begin, end, fail, stop or death of a job."""
        with disk_errors(self._path):
            os.write(self._descriptor, line({"time": utc_now(), "event": event, "job": job, **fields}))

    def close(self) -> None:
        os.close(self._descriptor)
