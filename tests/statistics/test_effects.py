"""Effect sizes: known answers, bounds, antisymmetry."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from subspace.statistics.effects import cliffs_delta, d_z, rank_biserial

NUMBERS = st.lists(st.integers(-5, 5).map(float), min_size=2, max_size=12).map(np.array)


def test_known_answers() -> None:
    assert d_z(np.array([1.0, 2.0, 3.0])) == pytest.approx(2.0)
    # ranks 1, 2, 3 with signs + + -
    assert rank_biserial(np.array([1.0, 2.0, -3.0, 0.0])) == pytest.approx(0.0)
    assert rank_biserial(np.array([1.0, -2.0, 3.0])) == pytest.approx(1 / 3)
    assert cliffs_delta(np.array([1.0, 4.0]), np.array([0.0, 2.0])) == pytest.approx(0.5)
    assert cliffs_delta(np.array([3.0, 4.0]), np.array([0.0, 2.0])) == 1.0
    assert cliffs_delta(np.array([1.0, 1.0]), np.array([1.0, 1.0])) == 0.0


def test_meaningless_is_none() -> None:
    assert d_z(np.array([1.0])) is None
    assert d_z(np.zeros(3)) is None
    assert d_z(np.full(7, 0.1)) is None
    assert rank_biserial(np.zeros(3)) is None
    assert cliffs_delta(np.array([1.0]), np.array([1.0, 2.0])) is None


@settings(max_examples=60, deadline=None)
@given(NUMBERS, NUMBERS)
def test_turning_the_comparison_turns_the_sign(first: np.ndarray, second: np.ndarray) -> None:
    for effect in (d_z, rank_biserial):
        one, other = effect(first), effect(-first)
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert one == pytest.approx(-other)
    delta, turned = cliffs_delta(first, second), cliffs_delta(second, first)
    assert delta is not None
    assert turned is not None
    assert delta == pytest.approx(-turned)
    assert -1.0 <= delta <= 1.0
    assert -1.0 <= (rank_biserial(first) or 0.0) <= 1.0
