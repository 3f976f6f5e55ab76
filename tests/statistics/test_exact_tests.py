"""Holm, signed ranks, McNemar, equivalence: against statsmodels, scipy and counting."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from subspace.statistics.crossed import crossed
from subspace.statistics.tests import (
    equivalence_p,
    holm,
    mcnemar_exact,
    mcnemar_over_seeds,
    signed_rank_p,
    smallest_signed_rank_p,
)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=12))
def test_holm_is_that_of_statsmodels(p_values: list[float]) -> None:
    from statsmodels.stats.multitest import multipletests

    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1].tolist())


def test_holm_of_nothing() -> None:
    assert holm([]) == ()


def test_signed_ranks_are_those_of_scipy_without_ties() -> None:
    generator = np.random.default_rng(0)
    for size in (1, 2, 5, 12, 30):
        differences = generator.normal(loc=0.4, size=size)
        assert signed_rank_p(differences) == pytest.approx(stats.wilcoxon(differences, method="exact").pvalue)


@pytest.mark.parametrize("differences", [[1, 1, -1, 2, 2, 3], [0, 0, 1, 1, 1, -2], [2, 2, 2, 2], [-1, 1]])
def test_signed_ranks_with_ties_are_counted(differences: list[float]) -> None:
    kept = np.array([value for value in differences if value], dtype=float)
    ranks = stats.rankdata(np.abs(kept))
    seen = abs(float((np.sign(kept) * ranks).sum()))
    sums = [abs(float((np.array(signs) * ranks).sum())) for signs in product((-1, 1), repeat=kept.size)]
    truth = float(np.mean([total >= seen - 1e-9 for total in sums]))
    assert signed_rank_p(np.array(differences, dtype=float)) == pytest.approx(truth)


def test_many_blocks_are_normal() -> None:
    differences = np.random.default_rng(1).normal(loc=0.15, size=150)
    truth = stats.wilcoxon(differences, method="asymptotic").pvalue
    assert signed_rank_p(differences) == pytest.approx(truth, rel=1e-6)


def test_equal_arms_have_no_ranks() -> None:
    assert signed_rank_p(np.zeros(4)) == 1.0


@pytest.mark.parametrize("blocks", [1, 3, 6, 9])
def test_the_smallest_p_is_reached_where_all_agree(blocks: int) -> None:
    assert smallest_signed_rank_p(blocks) == pytest.approx(signed_rank_p(np.arange(1.0, blocks + 1)))
    assert smallest_signed_rank_p(9) == pytest.approx(0.00390625)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (5, 0), (10, 3), (7, 7), (40, 61)])
def test_mcnemar_is_that_of_statsmodels(b: int, c: int) -> None:
    from statsmodels.stats.contingency_tables import mcnemar

    truth = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_exact(b, c) == pytest.approx(truth)


def test_mcnemar_with_one_seed_counts_cells_and_with_more_counts_items() -> None:
    first = np.array([[1, 1, 1, 1, 1, 0, 1, 0]], dtype=float)
    second = np.array([[0, 0, 0, 0, 0, 1, 1, 0]], dtype=float)
    assert mcnemar_over_seeds(first, second) == pytest.approx(mcnemar_exact(5, 1))
    # the same answers after five seeds are no five times as many items
    assert mcnemar_over_seeds(np.repeat(first, 5, 0), np.repeat(second, 5, 0)) == pytest.approx(mcnemar_exact(5, 1))
    # an item that either arm gets after one seed of two is a tie
    mixed = np.array([[1.0], [0.0]]), np.array([[0.0], [1.0]])
    assert mcnemar_over_seeds(*mixed) == 1.0


def test_equivalence_is_that_of_statsmodels() -> None:
    from statsmodels.stats.weightstats import ttost_paired

    first = np.array([0.712, 0.722, 0.705, 0.719, 0.713])
    second = np.array([0.710, 0.718, 0.707, 0.715, 0.716])
    truth = ttost_paired(first, second, -0.01, 0.01)[0]
    assert equivalence_p(crossed((first - second)[:, None]), 0.01) == pytest.approx(truth)
