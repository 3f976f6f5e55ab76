"""Simplified Chinese."""

from __future__ import annotations

from collections.abc import Mapping

from subspace.report.words.zh_sections import SECTIONS
from subspace.report.words.zh_verdict import VERDICT

__all__ = ["CHINESE"]

CHINESE: Mapping[str, str] = {**VERDICT, **SECTIONS}
