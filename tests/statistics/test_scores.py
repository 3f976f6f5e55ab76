"""A table of scores refuses what it cannot mean."""

from __future__ import annotations

import numpy as np
import pytest

from subspace.core.errors import DataError
from subspace.statistics.scores import ScoreTable


def _table(**changes: object) -> ScoreTable:
    values = np.array([[[1.0, 0.0, 1.0], [1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]])
    arguments = {
        "task": "quiz",
        "metric": "accuracy",
        "higher_is_better": True,
        "arms": ("lora", "full"),
        "seeds": (1, 2),
        "values": values,
        "binary": True,
    }
    return ScoreTable(**{**arguments, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"arms": ("lora", "lora")}, "each of them once"),
        ({"seeds": (1, 1)}, "each of them once"),
        ({"seeds": (1, 2, 3)}, r"shape \(2 arms, 3 seeds, items\)"),
        ({"values": np.zeros((2, 2))}, "shape"),
        ({"values": np.zeros((2, 2, 0))}, "at least one item"),
        ({"values": [[["a"]]]}, "no number"),
        ({"values": np.full((2, 2, 3), np.inf)}, "infinite"),
        ({"values": np.full((2, 2, 3), 0.5)}, "other values than 0 and 1"),
        ({"values": np.array([[[1.0]] * 2, [[np.nan]] * 2])}, "no score of full"),
        ({"weights": np.ones(2)}, "one weight for each of 3 items"),
        ({"weights": np.array([1.0, 0.0, 2.0])}, "not a positive number"),
        ({"weights": np.array([1.0, np.nan, 2.0])}, "not a positive number"),
    ],
)
def test_what_is_wrong_is_said(changes: dict[str, object], said: str) -> None:
    with pytest.raises(DataError, match=said) as error:
        _table(**changes)
    assert error.value.code == "E-DAT-002"
    assert "quiz (accuracy)" in str(error.value)


def test_missing_seeds_and_items_are_found() -> None:
    values = np.array([[[1.0, 0.0, np.nan], [1.0, 1.0, 0.0]], [[0.0, 0.0, 1.0], [np.nan] * 3]])
    table = _table(values=values)
    assert table.seeds_present().tolist() == [[True, True], [True, False]]
    # an item counts only where every seed that the arm has knows it
    assert table.items_present().tolist() == [[True, True, False], [True, True, True]]
    assert table.num_items == 3
    assert table.rows_of("full")[0].tolist() == [0.0, 0.0, 1.0]


def test_lists_become_arrays() -> None:
    table = _table(values=[[[1, 0]] * 2, [[0, 0]] * 2], weights=[1, 2], binary=False, arms=["a", "b"])
    assert table.values.dtype == np.float64
    assert table.arms == ("a", "b")
    assert table.weights is not None
    assert table.weights.tolist() == [1.0, 2.0]
