"""Scores of several arms on the same items after the same seeds: the one input of this room.

Legend: a arms (methods that are compared), s seeds (one training run each per arm), i items (questions, rows of a test
set).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from subspace.core.errors import DataError

__all__ = ["ScoreTable"]


@dataclass(frozen=True, slots=True, eq=False)
class ScoreTable:
    """Scores of one task under one metric, paired: item j is the same item for every arm and seed.

    A table with one item holds one score a run (a metric known only as a mean); it can still be judged, over seeds
    alone.

    Attributes:
        task: Name of the task; tables of one comparison have different (task, metric) pairs.
        metric: Name of the metric, e.g. `accuracy` or `loss`.
        higher_is_better: Whether a larger score is the better one.
        arms: Names of what is compared, in any order, each once.
        seeds: Seeds of the training runs, each once. The same seed means the same data order for all arms.
        values: Of shape (arms, seeds, items), float64. NaN where an arm lacks a seed (the whole row) or an item.
            Accuracy-like scores are shares between 0 and 1, not percent.
        weights: Of shape (items,), positive, e.g. target tokens of a loss. The task's score is the weighted mean
            sum(w x) / sum(w). None counts every item once.
        binary: Whether all values are 0 or 1.

    Raises:
        DataError: E-DAT-002 when shapes disagree, names repeat, a value is infinite, a weight is not positive, a binary
            table holds something else than 0 and 1, or an arm has no score at all.
    """

    task: str
    metric: str
    higher_is_better: bool
    arms: tuple[str, ...]
    seeds: tuple[int, ...]
    values: NDArray[np.float64] = field(repr=False)
    weights: NDArray[np.float64] | None = field(default=None, repr=False)
    binary: bool = False
    _seeds_present: NDArray[np.bool_] = field(init=False, repr=False)
    _items_present: NDArray[np.bool_] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "arms", tuple(self.arms))
        object.__setattr__(self, "seeds", tuple(self.seeds))
        object.__setattr__(self, "values", self._array(self.values, "values"))
        if self.weights is not None:
            object.__setattr__(self, "weights", self._array(self.weights, "weights"))
        self._check_names()
        self._check_values()
        self._check_weights()
        # asked for by every pair of arms: once is enough
        finite = np.isfinite(self.values)
        seeds = np.any(finite, axis=2)
        object.__setattr__(self, "_seeds_present", seeds)
        object.__setattr__(self, "_items_present", np.all(finite | ~seeds[:, :, None], axis=1))

    @property
    def num_items(self) -> int:
        """Return the number of items, whether or not every arm has them."""
        return int(self.values.shape[2])

    def rows_of(self, arm: str) -> NDArray[np.float64]:
        """Return the scores of one arm, of shape (seeds, items)."""
        rows: NDArray[np.float64] = self.values[self.arms.index(arm)]
        return rows

    def seeds_present(self) -> NDArray[np.bool_]:
        """Return which arm has which seed, of shape (arms, seeds): a row with one finite value counts."""
        return self._seeds_present

    def items_present(self) -> NDArray[np.bool_]:
        """Return which arm has which item after every seed that it has, of shape (arms, items)."""
        return self._items_present

    def _array(self, values: object, name: str) -> NDArray[np.float64]:
        try:
            return np.asarray(values, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise self._wrong(f"{name} hold something that is no number", "numbers, NaN for what is missing") from error

    def _check_names(self) -> None:
        shape = self.values.shape
        if len(shape) != 3 or shape[:2] != (len(self.arms), len(self.seeds)):
            expected = f"({len(self.arms)} arms, {len(self.seeds)} seeds, items)"
            raise self._wrong(f"values have the shape {shape}", f"the shape {expected}")
        for name, entries in (("arms", self.arms), ("seeds", self.seeds)):
            if not entries or len(set(entries)) != len(entries):
                raise self._wrong(f"{name} are {list(entries)}", f"at least one of the {name}, each of them once")
        if shape[2] == 0:
            raise self._wrong("the table has no item", "at least one item")

    def _check_values(self) -> None:
        if np.isinf(self.values).any():
            raise self._wrong("a score is infinite", "finite scores, NaN for what is missing")
        finite = np.isfinite(self.values)
        empty = [arm for arm, known in zip(self.arms, np.any(finite, axis=(1, 2)).tolist(), strict=True) if not known]
        if empty:
            raise self._wrong(f"no score of {', '.join(empty)}", "at least one score of every arm")
        if self.binary and not np.isin(self.values[finite], (0.0, 1.0)).all():
            raise self._wrong("a binary table holds other values than 0 and 1", "0 and 1, or binary=False")

    def _check_weights(self) -> None:
        if self.weights is None:
            return
        if self.weights.shape != (self.num_items,):
            raise self._wrong(
                f"weights have the shape {self.weights.shape}", f"one weight for each of {self.num_items} items"
            )
        if not (np.isfinite(self.weights).all() and (self.weights > 0).all()):
            raise self._wrong("a weight is not a positive number", "positive finite weights")

    def _wrong(self, found: str, expected: str) -> DataError:
        return DataError(
            "E-DAT-002",
            where=f"scores of {self.task} ({self.metric})",
            found=found,
            expected=expected,
            action="Correct the table that is compared.",
        )
