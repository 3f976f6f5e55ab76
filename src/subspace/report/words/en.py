"""English."""

from __future__ import annotations

from collections.abc import Mapping

from subspace.report.words.en_sections import SECTIONS
from subspace.report.words.en_verdict import VERDICT

__all__ = ["ENGLISH"]

ENGLISH: Mapping[str, str] = {**VERDICT, **SECTIONS}
