"""The verdict end to end: ranking, decisions, groups, families, and what must not change it."""

from __future__ import annotations

import dataclasses
import doctest
import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_scores import binary_table, loss_table
from scipy import stats

from subspace.core.errors import DataError, UsageError
from subspace.statistics import tests as exact_tests
from subspace.statistics import verdict as verdict_module
from subspace.statistics.scores import ScoreTable
from subspace.statistics.tests import holm
from subspace.statistics.verdict import Comparison, Verdict, judge


def _judge(*tables: ScoreTable, **options: object) -> Verdict:
    return judge(tables, resamples=200, **options)  # type: ignore[arg-type]


def _pair(verdict: Verdict, first: str, second: str, task: int = 0) -> Comparison:
    return next(one for one in verdict.tasks[task].comparisons if {one.first, one.second} == {first, second})


def test_examples_in_docstrings() -> None:
    assert doctest.testmod(verdict_module).failed == 0
    assert doctest.testmod(exact_tests).failed == 0


def test_what_differs_is_decided_and_what_does_not_is_tied() -> None:
    verdict = _judge(binary_table([0.5, 0.75, 0.752]))
    task = verdict.tasks[0]
    assert {task.ranking[0].arm, task.ranking[1].arm} == {"b", "c"}
    assert task.ranking[2].arm == "a"
    assert _pair(verdict, "a", "b").decided == "b"
    assert _pair(verdict, "b", "c").decided is None
    assert [set(group) for group in task.tie_groups] == [{"b", "c"}, {"a"}]
    assert [rank.letters for rank in task.ranking] == ["a", "a", "b"]
    assert (verdict.family, verdict.num_hypotheses, verdict.reference) == ("all pairs", 3, None)


def test_the_lower_loss_is_the_better() -> None:
    verdict = _judge(loss_table([1.0, 0.8]))
    task = verdict.tasks[0]
    assert task.ranking[0].arm == "b"
    found = _pair(verdict, "a", "b")
    assert (found.first, found.decided) == ("b", "b")
    assert found.interval.estimate < 0.0
    assert found.interval.high < 0.0
    assert found.mcnemar_p is None
    assert found.discordant is None
    assert verdict.pooled[0].rank_biserial == 1.0


def test_a_comparison_by_hand() -> None:
    """One score a run: every figure has a name in a textbook."""
    first, second = np.array([0.71, 0.74, 0.69, 0.75]), np.array([0.70, 0.70, 0.68, 0.71])
    table = ScoreTable("quiz", "f1", True, ("a", "b"), (0, 1, 2, 3), np.stack([first, second])[:, :, None])
    verdict = _judge(table)
    found = _pair(verdict, "a", "b")
    assert found.p == pytest.approx(stats.ttest_rel(first, second).pvalue)
    assert found.p_adjusted == found.p
    assert found.d_z == pytest.approx((first - second).mean() / (first - second).std(ddof=1))
    assert found.rank_biserial == 1.0
    assert found.cliffs_delta == pytest.approx((12 - 3) / 16, abs=0.08)
    assert (found.scope, found.num_seeds, found.num_items) == ("seeds", 4, 1)
    assert verdict.pooled[0].wilcoxon_p == verdict.pooled[0].min_p == 0.125
    rank = verdict.tasks[0].ranking[0]
    assert (rank.mean, rank.seed_std) == pytest.approx((first.mean(), first.std(ddof=1)))


def test_holm_runs_over_all_tasks() -> None:
    tables = [binary_table([0.6, 0.63, 0.7]), loss_table([1.0, 1.01, 1.1])]
    verdict = _judge(*tables)
    comparisons = [one for task in verdict.tasks for one in task.comparisons]
    assert verdict.num_hypotheses == len(comparisons) == 6
    assert [one.p_adjusted for one in comparisons] == pytest.approx(holm([one.p for one in comparisons]))
    assert _judge(tables[0]).tasks[0].comparisons[0].p_adjusted <= comparisons[0].p_adjusted
    assert verdict.tasks[0].power.alpha == pytest.approx(0.05 / 6)


def test_against_a_reference_only_that_is_compared() -> None:
    verdict = _judge(binary_table([0.5, 0.5, 0.8, 0.2]), reference="b")
    assert verdict.family == "against the reference"
    assert [(one.first, one.second) for one in verdict.tasks[0].comparisons] == [("c", "b"), ("a", "b"), ("d", "b")]
    assert [set(group) for group in verdict.tasks[0].tie_groups] == [{"a", "b"}]
    assert {rank.arm: rank.letters for rank in verdict.tasks[0].ranking} == {"a": "a", "b": "a", "c": "", "d": ""}
    assert _pair(verdict, "d", "b").decided == "b"
    assert {frozenset((one.first, one.second)) for one in verdict.pooled} == {
        frozenset("ab"),
        frozenset("cb"),
        frozenset("db"),
    }


def test_weights_make_the_score() -> None:
    table = loss_table([1.0, 1.0], weighted=True)
    task = _judge(table).tasks[0]
    rank, found = task.ranking[0], task.comparisons[0]
    values = table.rows_of(rank.arm)
    assert found.interval.estimate == pytest.approx(rank.mean - task.ranking[1].mean)
    assert found.bootstrap.low < found.interval.estimate < found.bootstrap.high
    assert rank.mean == pytest.approx(np.average(values.mean(axis=0), weights=table.weights))
    bare = dataclasses.replace(table, weights=None)
    assert _judge(bare).tasks[0].ranking[0].mean != pytest.approx(rank.mean)


def test_equivalence_needs_a_margin_and_tight_intervals() -> None:
    table = loss_table([1.0, 1.0, 1.3])
    assert _pair(_judge(table), "a", "b").equivalent is None
    wide, narrow = _judge(table, margin=0.1), _judge(table, margin=0.001)
    assert _pair(wide, "a", "b").equivalent is True
    assert _pair(wide, "a", "c").equivalent is False
    assert _pair(narrow, "a", "b").equivalent is False


def test_seeds_that_differ_are_compared_unpaired() -> None:
    table = binary_table([0.5, 0.7], seeds=6)
    values = table.values.copy()
    values[0, :3], values[1, 3:] = np.nan, np.nan
    found = _pair(_judge(dataclasses.replace(table, values=values)), "a", "b")
    assert (found.paired, found.num_seeds) == (False, 3)
    assert found.interval.method == "Welch t on seed and item variances"
    assert found.bootstrap.low < found.interval.estimate < found.bootstrap.high
    assert found.discordant == pytest.approx(0.35, abs=0.15)


def test_a_missing_seed_leaves_the_others_paired() -> None:
    table = binary_table([0.5, 0.7], seeds=5)
    values = table.values.copy()
    values[0, 1] = np.nan
    found = _pair(_judge(dataclasses.replace(table, values=values)), "a", "b")
    assert (found.paired, found.num_seeds) == (True, 4)
    by_hand = values[1, [0, 2, 3, 4]].mean() - values[0, [0, 2, 3, 4]].mean()
    assert found.interval.estimate == pytest.approx(by_hand)


def test_missing_items_are_left_out_pair_by_pair() -> None:
    table = binary_table([0.5, 0.7, 0.6], items=100)
    values = table.values.copy()
    values[0, :, :40] = np.nan
    verdict = _judge(dataclasses.replace(table, values=values))
    assert _pair(verdict, "a", "b").num_items == 60
    assert _pair(verdict, "b", "c").num_items == 100
    assert verdict.tasks[0].num_items == 60
    assert next(rank for rank in verdict.tasks[0].ranking if rank.arm == "b").mean == pytest.approx(
        values[1, :, 40:].mean()
    )


def test_one_seed_speaks_of_items() -> None:
    found = _pair(_judge(binary_table([0.5, 0.7], seeds=1)), "a", "b")
    assert (found.scope, found.interval.method, found.cliffs_delta) == ("items", "t over items", None)
    assert _judge(binary_table([0.5, 0.7], seeds=1)).tasks[0].ranking[0].seed_std is None


def test_one_score_each_decides_nothing() -> None:
    table = ScoreTable("quiz", "f1", True, ("a", "b"), (0,), np.array([[[0.9]], [[0.1]]]))
    verdict = _judge(table)
    found = _pair(verdict, "a", "b")
    assert (found.decided, found.p, found.scope) == (None, 1.0, "nothing")
    assert (found.interval.low, found.interval.high) == (-math.inf, math.inf)
    assert verdict.tasks[0].power.detectable is None


def test_shares_stay_between_zero_and_one() -> None:
    rank = _judge(binary_table([0.995, 0.5], items=60)).tasks[0].ranking[0]
    assert 0.9 < rank.interval.low < rank.interval.high <= 1.0


def test_arms_in_different_tasks_are_pooled_where_they_meet() -> None:
    other = dataclasses.replace(loss_table([0.8, 1.0], task="other"), arms=("b", "z"))
    verdict = _judge(binary_table([0.5, 0.8]), other, loss_table([1.0, 0.8]))
    blocks = {frozenset((one.first, one.second)): one for one in verdict.pooled}
    assert blocks[frozenset("ab")].num_blocks == 10
    assert blocks[frozenset("bz")].num_blocks == 5
    pooled = blocks[frozenset("ab")]
    # b is better in both, although its loss is the lower number
    assert pooled.rank_biserial == (1.0 if pooled.first == "b" else -1.0)
    assert pooled.wilcoxon_p == pytest.approx(2 / 2**10)
    assert pooled.p_adjusted == pytest.approx(4 / 2**10)


def test_tasks_that_disagree_cancel() -> None:
    """Better in one task and worse in the other: the order of the pair in either ranking must not hide it."""
    pooled = _judge(binary_table([0.8, 0.5]), loss_table([1.0, 0.8])).pooled[0]
    assert pooled.num_blocks == 10
    assert abs(pooled.rank_biserial or 0.0) < 0.5
    assert pooled.wilcoxon_p > 0.3


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_names_items_and_seeds_may_come_in_any_order(seed: int) -> None:
    generator = np.random.default_rng(seed)
    table = binary_table([0.5, 0.6, 0.62], seeds=3, items=60, seed=seed)
    arms, seeds, items = generator.permutation(3), generator.permutation(3), generator.permutation(60)
    shuffled = dataclasses.replace(
        table,
        arms=tuple(table.arms[k] for k in arms),
        seeds=tuple(table.seeds[k] for k in seeds),
        values=table.values[np.ix_(arms, seeds, items)],
    )
    one, other = _judge(table).tasks[0], _judge(shuffled).tasks[0]
    assert [(rank.arm, rank.letters) for rank in one.ranking] == [(rank.arm, rank.letters) for rank in other.ranking]
    assert [found.p for found in one.comparisons] == pytest.approx([found.p for found in other.comparisons])


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 10_000))
def test_turning_the_comparison_turns_its_figures(seed: int) -> None:
    table = loss_table([1.0, 1.01], seeds=4, items=30, seed=seed)
    one, other = (_judge(table, reference=arm).tasks[0].comparisons[0] for arm in ("a", "b"))
    assert (one.first, one.second) == (other.second, other.first)
    assert one.interval.estimate == pytest.approx(-other.interval.estimate)
    assert (one.interval.low, one.bootstrap.low) == pytest.approx((-other.interval.high, -other.bootstrap.high))
    assert (one.p, one.decided) == (pytest.approx(other.p), other.decided)
    assert one.d_z == pytest.approx(-(other.d_z or 0.0))
    assert one.rank_biserial == pytest.approx(-(other.rank_biserial or 0.0))
    assert one.cliffs_delta == pytest.approx(-(other.cliffs_delta or 0.0))


def test_the_verdict_is_repeatable_and_plain() -> None:
    tables = [binary_table([0.5, 0.7]), loss_table([1.0, 0.9])]
    first, second = _judge(*tables), _judge(*tables)
    assert first == second
    assert json.loads(json.dumps(dataclasses.asdict(first)))["level"] == 0.95


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"reference": "lora"}, "no arm is called 'lora'; expected one of a, b"),
        ({"level": 95.0}, "between 0 and 1"),
        ({"resamples": 10}, "at least 100"),
        ({"margin": 0.0}, "positive"),
        ({"margin": math.nan}, "positive"),
    ],
)
def test_wrong_options_are_told(options: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        judge([binary_table([0.5, 0.6])], **options)  # type: ignore[arg-type]


def test_wrong_tables_are_told() -> None:
    with pytest.raises(DataError, match="no table"):
        judge([])
    with pytest.raises(DataError, match="two tables"):
        judge([binary_table([0.5, 0.6]), binary_table([0.5, 0.6])])


@pytest.mark.timeout(60)
def test_most_arms_with_one_seed_is_no_endless_search_for_power() -> None:
    """One score a run; only a and b were run with three seeds, so that noise is known from one pair of fifteen."""
    table = loss_table([1.0, 0.9, 1.1, 1.2, 0.8, 1.0], items=1, seeds=3)
    values = table.values.copy()
    values[2:, 1:] = np.nan
    task = _judge(dataclasses.replace(table, values=values)).tasks[0]
    assert task.power.detectable is not None
    assert math.isfinite(task.power.detectable)
