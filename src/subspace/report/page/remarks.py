"""Remarks of the score tables and of statistics, as sentences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from subspace.report.measures import Measure
from subspace.report.study import Study
from subspace.report.words.phrase import Phrase, Said, listed, say
from subspace.report.words.strings import STRINGS
from subspace.statistics.findings import Remark

__all__ = ["sentence"]

_QUIET = frozenset({"nothing-to-compare", "no-seed-noise"})
"""Codes that the page shows in other ways."""


def sentence(remark: Remark, study: Study) -> Said | None:
    """Return what a remark says, without its task; None if the page needs no words for it."""
    if remark.code in _QUIET or (remark.code == "blocks-cannot-decide" and len(study.scored) < 2):
        return None
    key = f"remark_{remark.code.replace('-', '_')}"
    if key not in STRINGS["en"]:
        return say("remark_other", code=remark.code)
    return say(key, **_fields(remark.values, _measure(remark, study)))


def _measure(remark: Remark, study: Study) -> Measure | None:
    task = remark.values.get("task")
    return next((study.measure(scored) for scored in study.scored if scored.name == task), None)


def _fields(values: Mapping[str, Any], measure: Measure | None) -> dict[str, Said]:
    """Return the values as they are read."""
    told: dict[str, Said] = {}
    for name, value in values.items():
        if name == "pairs":
            told["pairs"] = listed([say("versus", first=first, second=second) for first, second in value], 4)
            told["count"] = len(value)
        elif name in ("largest", "detectable") and measure is not None:
            told[name] = measure.difference(float(value))
        elif name in ("power", "share", "even"):
            told[name] = f"{100 * float(value):.0f} %"
        elif isinstance(value, Mapping):
            fewest = min(value.values(), default=0)
            told[name] = _fewest(value, fewest)
            told["fewest"] = fewest
        elif isinstance(value, list | tuple):
            told[name] = listed([str(part) for part in value], 6)
        elif isinstance(value, float):
            told[name] = f"{value:.3g}"
        else:
            told[name] = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return told


def _fewest(counts: Mapping[str, int], fewest: int) -> Said:
    found: list[Phrase | str] = [name for name, count in counts.items() if count == fewest]
    return listed(found, 6)
