"""Scores and differences as people read them: shares in percent and points, losses with enough digits."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from subspace.report.tables import LOWER_IS_BETTER
from subspace.report.words.phrase import Phrase, Said, say
from subspace.report.words.strings import STRINGS

__all__ = ["Measure", "metric_name"]


@dataclass(frozen=True)
class Measure:
    """How one metric is written.

    Attributes:
        metric: Its name.
        share: Values lie between 0 and 1 and are written in percent, differences in percentage points.
        digits: After the point.
    """

    metric: str
    share: bool
    digits: int = 1

    @classmethod
    def of(cls, metric: str, values: Iterable[float]) -> Measure:
        """Return how a metric with these values is written."""
        known = list(values)
        if metric not in LOWER_IS_BETTER and all(0 <= value <= 1 for value in known):
            return cls(metric, True)
        largest = max((abs(value) for value in known), default=1.0) or 1.0
        return cls(metric, False, min(max(3 - math.floor(math.log10(largest)), 0), 6))

    def value(self, value: float) -> str:
        """Return a score."""
        return f"{100 * value:.1f} %" if self.share else f"{value:.{self.digits}f}"

    def bare(self, value: float, *, signed: bool = False) -> str:
        """Return a difference without its unit; the minus is the true one."""
        scaled = 100 * value if self.share else value
        if not math.isfinite(scaled):
            return "∞" if scaled > 0 else "−∞"
        text = f"{scaled:.{self.digits}f}"
        if float(text) == 0:
            return text.lstrip("-")
        return ("+" if signed and scaled > 0 else "") + text.replace("-", "−")

    def difference(self, value: float, *, signed: bool = False) -> Said:
        """Return a difference with its unit."""
        text = self.bare(value, signed=signed)
        return say("points", value=text) if self.share else text

    def span(self, low: float, high: float) -> Said:
        """Return the ends of an interval of scores."""
        if self.share:
            return say("span", low=f"{100 * low:.1f}", high=f"{100 * high:.1f} %")
        return say("span", low=self.value(low), high=self.value(high))

    def between(self, low: float, high: float, *, signed: bool = False) -> Phrase:
        """Return the ends of an interval of differences, without a unit."""
        return say("span", low=self.bare(low, signed=signed), high=self.bare(high, signed=signed))

    @property
    def name(self) -> Said:
        return metric_name(self.metric)


def metric_name(metric: str) -> Said:
    """Return the words for a metric, or its own name where there are none."""
    return say(f"metric_{metric}") if f"metric_{metric}" in STRINGS["en"] else metric
