"""The success criteria of a search, each literally and by the statistics that bear on it."""

from __future__ import annotations

from subspace.report.study import Study

__all__ = ["gates"]


def gates(study: Study) -> str:
    """Return the criteria of every arm against the reference; nothing without one."""
    return ""
