"""Lines of numbers made fit for a picture: smoothed, thinned, put on a scale, their labels kept apart."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Scale", "pick_scale", "smooth", "spread", "step_scale", "thin"]

_SMOOTHED_FROM = 20
_LOGARITHMIC_FROM = 8.0
_LEAST_SHARE = 0.02


def smooth(values: Sequence[float], span: int | None = None) -> list[float]:
    """Return an exponential moving average over about `span` records (a twentieth of all), unbiased at its beginning.

    Fewer than 20 values are returned as they are.

    >>> smooth([1.0, 2.0])
    [1.0, 2.0]
    """
    if len(values) < _SMOOTHED_FROM:
        return list(values)
    keep = 1 - 2 / (max(span or len(values) // 20, 3) + 1)
    total, weight, out = 0.0, 0.0, []
    for value in values:
        total, weight = keep * total + (1 - keep) * value, keep * weight + (1 - keep)
        out.append(total / weight)
    return out


def thin(steps: Sequence[int], values: Sequence[float], most: int = 400) -> list[tuple[int, float]]:
    """Return at most about `most` points that look the same: of each stretch its first, lowest, highest and last."""
    points = list(zip(steps, values, strict=True))
    if len(points) <= most:
        return points
    width = math.ceil(4 * len(points) / most)
    kept: list[tuple[int, float]] = []
    for start in range(0, len(points), width):
        part = range(start, min(start + width, len(points)))
        low, high = min(part, key=lambda i: values[i]), max(part, key=lambda i: values[i])
        kept += [points[place] for place in sorted({part[0], low, high, part[-1]})]
    return kept


@dataclass(frozen=True, slots=True)
class Scale:
    """A vertical axis.

    Attributes:
        low: Value at the bottom.
        high: Value at the top.
        logarithmic: Equal ratios take equal room.
        ticks: Values that are written.
    """

    low: float
    high: float
    logarithmic: bool
    ticks: tuple[float, ...]

    def kept(self, value: float) -> float:
        """Return `value`, or the end of the axis that it lies beyond."""
        return min(max(value, self.low), self.high)

    def place(self, value: float) -> float:
        """Return where `value` lies, 0 at the bottom and 1 at the top; what lies outside is put on the edge."""
        value = self.kept(value)
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def pick_scale(values: Sequence[float], *, within: tuple[float, float] | None = None, from_zero: bool = False) -> Scale:
    """Return an axis to read `values` on: without the highest 1 %, logarithmic over a wide range.

    Args:
        values: At least one.
        within: What the values cannot leave; the axis stays in it, is linear, and shows at least a fiftieth of it, so
            that noise does not look like change.
        from_zero: The axis begins at 0 and is linear.
    """
    ordered = sorted(values)
    low, high = ordered[0], ordered[min(len(ordered) - 1, math.ceil(0.99 * len(ordered)))]
    if from_zero:
        low = min(low, 0.0)
    elif within is None and low > 0 and high / low > _LOGARITHMIC_FROM:
        low, high = low / 1.1, high * 1.1
        return Scale(low, high, True, tuple(_log_ticks(low, high)))
    margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    low = max(0.0, low - margin) if low >= 0 else low - margin
    high += margin
    if within is not None:
        missing = max(0.0, _LEAST_SHARE * (within[1] - within[0]) - (high - low)) / 2
        low, high = low - missing, high + missing
        low, high = max(low, within[0]), min(high, within[1])
    return Scale(low, high, False, tuple(_round_ticks(low, high)))


def step_scale(last: int) -> Scale:
    """Return the axis from 0 to the last step; ticks are whole steps."""
    return Scale(
        0.0, float(max(last, 1)), False, tuple(tick for tick in _round_ticks(0, max(last, 1)) if tick % 1 == 0)
    )


def _round_ticks(low: float, high: float) -> list[float]:
    step = _round_step((high - low) / 4)
    first = math.ceil(low / step)
    return [round((first + index) * step, 10) for index in range(int((high - first * step) / step + 1e-9) + 1)]


def _round_step(rough: float) -> float:
    power: float = 10.0 ** math.floor(math.log10(rough))
    return next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)


def _log_ticks(low: float, high: float) -> list[float]:
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1, 2, 5) if len(decades) <= 4 else (1,)
    ticks = [factor * 10.0**power for power in decades for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def spread(places: Sequence[float], gap: float, low: float = 0.0, high: float = 1.0) -> list[float]:
    """Move labels as little as needed so that any two are `gap` apart; all stay between `low` and `high` if they fit.

    >>> spread([0.5, 0.5, 0.9], 0.1)
    [0.45, 0.55, 0.9]
    """
    order = sorted(range(len(places)), key=lambda index: places[index])
    # A block of touching labels is (sum of where its labels wish its first one to be, number of labels).
    blocks: list[tuple[float, int]] = []
    for index in order:
        blocks.append((places[index], 1))
        while len(blocks) > 1 and _first(blocks[-2]) + blocks[-2][1] * gap > _first(blocks[-1]):
            (wish, count), (before, others) = blocks.pop(), blocks.pop()
            blocks.append((before + wish - gap * others * count, others + count))
    flat = [_first(block) + gap * place for block in blocks for place in range(block[1])]
    moved = [0.0] * len(places)
    for rank, index in enumerate(order):
        below_top = high - gap * (len(flat) - 1 - rank)
        moved[index] = round(max(min(flat[rank], below_top), low + gap * rank), 6)
    return moved


def _first(block: tuple[float, int]) -> float:
    return block[0] / block[1]
