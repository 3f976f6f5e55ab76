"""Whether runs that are done were made of the files that are there now. Imports no torch.

A run that is not finished finds a change itself when it goes on; of a finished one nobody would.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from subspace.core.errors import DataError
from subspace.runs.manifest import file_digest, read_manifest

__all__ = ["DataFiles"]


class DataFiles:
    """The files as they are found; each is read once a session."""

    def __init__(self) -> None:
        self._digests: dict[str, str | None] = {}

    def require_same(self, run: Path) -> None:
        """Hold what a finished run says of its data files against the files; one that is gone says nothing.

        Raises:
            DataError: E-DAT-015 naming the file.
        """
        for path, recorded in _recorded(run):
            if path not in self._digests:
                self._digests[path] = _digest(Path(path))
            present = self._digests[path]
            if present is not None and present != recorded:
                raise DataError(
                    "E-DAT-015",
                    where=path,
                    found=f"another file than {run} was made of (sha256 {present[:12]}..., then {recorded[:12]}...)",
                    expected="the same rows for all runs of a bench",
                    action="Restore the file, or give another --out.",
                )


def _recorded(run: Path) -> Iterator[tuple[str, str]]:
    """Yield path and digest of every file that a run read."""
    data = read_manifest(run)["facts"].get("data")
    for part in data if isinstance(data, list) else ():
        found: Any = part.get("files") if isinstance(part, dict) else None
        for file in found if isinstance(found, list) else ():
            yield file["path"], file["sha256"]


def _digest(path: Path) -> str | None:
    try:
        return file_digest(path)
    except OSError:
        return None
