"""What subspaces did: the refreshes that a run logged, as lines over its steps and as figures weight by weight.

A record `{"event": "method", "kind": "refresh"}` tells of the weights that got a new basis in that step, which may be
all of them or a few. So that every run reads alike, a line is the mean over weights, each as of its latest refresh.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any

from subspace.report.values import dig, number

__all__ = ["FIGURES", "Figure", "Refresh", "captured_by_weight", "figure_points", "read_refreshes", "weight_rows"]

_UNBOUNDED = 1e9
"""What has no natural end is damage above this."""
_SLACK = 1e-3
"""How far rounding may carry a figure out of its range."""
_KNOWN_FROM = 0.5
"""A line begins when this share of the weights that report a figure have done so."""


def _share(value: float) -> str:
    return f"{100 * value:g} %"


def _degrees(value: float) -> str:
    return f"{value:g}°"


def _seconds(value: float) -> str:
    return f"{value:g} s"


def _plain(value: float) -> str:
    return f"{value:g}"


@dataclass(frozen=True)
class Figure:
    """One quantity of a refresh.

    Attributes:
        key: Its name in the log; of strings `figure_<key>` is its title and `about_<key>` one line that explains it.
        low: Smallest value that makes sense; others are taken for damage and left out.
        high: Largest one.
        form: Writes a value with its unit.
        from_zero: Shown on an axis that begins at 0.
    """

    key: str
    low: float
    high: float
    form: Callable[[float], str]
    from_zero: bool = False

    @property
    def within(self) -> tuple[float, float] | None:
        """The range that its axis must stay in, if it has a natural one."""
        return (self.low, self.high) if self.high < _UNBOUNDED else None

    def clean(self, found: Any) -> float | None:
        """Return a logged value, moved into its range; None if it is no number or makes no sense."""
        value = number(found)
        if value is None or not self.low - _SLACK <= value <= self.high + _SLACK:
            return None
        return min(max(value, self.low), self.high)


_CAPTURED = Figure("captured_energy", 0.0, 1.0, _share)
_WAITED = Figure("refresh_seconds", 0.0, _UNBOUNDED, _seconds, from_zero=True)
_SO_FAR = Figure("refresh_seconds_so_far", 0.0, _UNBOUNDED, _seconds, from_zero=True)

FIGURES: tuple[Figure, ...] = (
    _CAPTURED,
    Figure("effective_rank", 0.0, _UNBOUNDED, _plain),
    Figure("overlap", 0.0, 1.0, _share),
    Figure("largest_angle_degrees", 0.0, 90.0, _degrees),
    Figure("drift", 0.0, 1.0, _share),
    Figure("update_norm", 0.0, _UNBOUNDED, _plain, from_zero=True),
    _WAITED,
    _SO_FAR,
)
"""What is shown, in this order. All but the last two are logged weight by weight; the last is summed up here."""
_LOGGED = {figure.key: figure for figure in FIGURES if figure not in (_WAITED, _SO_FAR)}


@dataclass(frozen=True)
class Refresh:
    """The new bases of one step.

    Attributes:
        step: The optimizer step.
        means: The record's own means over these weights.
        weights: Weight to figure to value.
        seconds: Time that the step took for finding bases; None if unknown.
    """

    step: int
    means: Mapping[str, float] = field(default_factory=dict)
    weights: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    seconds: float | None = None


def read_refreshes(log: Iterable[Mapping[str, Any]]) -> list[Refresh]:
    """Return the refreshes of a log in order of steps; of records of one step the last counts."""
    found = {}
    for entry in log:
        if entry.get("event") != "method" or entry.get("kind") != "refresh":
            continue
        step = number(entry.get("step"))
        if step is not None:
            weights = entry.get("weights")
            named = weights.items() if isinstance(weights, Mapping) else ()
            figures = {str(name): known for name, tree in named if (known := _known(tree))}
            seconds = _WAITED.clean(dig(entry, "machine", _WAITED.key))
            found[int(step)] = Refresh(int(step), _known(entry), figures, seconds)
    return [found[step] for step in sorted(found)]


def _known(tree: Any) -> dict[str, float]:
    if not isinstance(tree, Mapping):
        return {}
    return {
        key: value for key, found in tree.items() if key in _LOGGED and (value := _LOGGED[key].clean(found)) is not None
    }


def figure_points(found: Sequence[Refresh], figure: Figure) -> tuple[list[int], list[float]]:
    """Return steps and values of one figure over a run."""
    if figure in (_WAITED, _SO_FAR):
        timed = [(refresh.step, refresh.seconds) for refresh in found if refresh.seconds is not None]
        steps, values = [step for step, _ in timed], [seconds for _, seconds in timed]
        return steps, list(accumulate(values)) if figure is _SO_FAR else values
    points = list(_held(found, figure.key)) or [
        (refresh.step, refresh.means[figure.key]) for refresh in found if figure.key in refresh.means
    ]
    return [step for step, _ in points], [value for _, value in points]


def _held(found: Sequence[Refresh], key: str) -> Iterator[tuple[int, float]]:
    """Yield the mean over weights, each as of its latest refresh, wherever one of them is new."""
    reporting = {name for refresh in found for name, figures in refresh.weights.items() if key in figures}
    latest: dict[str, float] = {}
    for refresh in found:
        new = {name: figures[key] for name, figures in refresh.weights.items() if key in figures}
        latest |= new
        if new and len(latest) >= _KNOWN_FROM * len(reporting):
            yield refresh.step, sum(latest.values()) / len(latest)


def captured_by_weight(found: Sequence[Refresh]) -> dict[str, float]:
    """Return the captured energy of every weight, the mean over its refreshes."""
    values: dict[str, list[float]] = {}
    for refresh in found:
        for name, figures in refresh.weights.items():
            if _CAPTURED.key in figures:
                values.setdefault(name, []).append(figures[_CAPTURED.key])
    return {name: sum(listed) / len(listed) for name, listed in values.items()}


def weight_rows(found: Iterable[Refresh]) -> Iterator[dict[str, Any]]:
    """Yield every figure of every refreshed weight in long form: step, weight, metric, value."""
    for refresh in found:
        for name, figures in refresh.weights.items():
            for key, value in figures.items():
                yield {"step": refresh.step, "weight": name, "metric": key, "value": value}
