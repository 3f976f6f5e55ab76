"""A small matrix as a file."""

from __future__ import annotations

from stub_bench import write_matrix

__all__ = ["write_matrix"]
