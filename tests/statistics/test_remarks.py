"""Each remark appears where it must, with its values, and is absent from a sound comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from made_scores import binary_table, loss_table

from subspace.statistics import remarks as remarks_module
from subspace.statistics.remarks import CODES
from subspace.statistics.scores import ScoreTable
from subspace.statistics.verdict import Remark, judge


def _remarks(*tables: ScoreTable, reference: str | None = None) -> dict[str, Remark]:
    return {remark.code: remark for remark in judge(tables, reference=reference, resamples=100).remarks}


def _changed(table: ScoreTable, *places: tuple[object, ...]) -> ScoreTable:
    values = table.values.copy()
    for place in places:
        values[place] = np.nan
    return dataclasses.replace(table, values=values)


def _noisy(seeds: int = 8) -> ScoreTable:
    table = loss_table([1.0, 1.5], seeds=seeds)
    shifts = 0.05 * np.random.default_rng(3).normal(size=(2, seeds, 1))
    return dataclasses.replace(table, values=table.values + shifts)


def test_a_sound_comparison_has_no_remark() -> None:
    assert _remarks(_noisy()) == {}


def test_all_codes_are_described() -> None:
    described = remarks_module.__doc__ or ""
    lines = [line for line in described.splitlines() if line.startswith("    ") and not line.startswith("     ")]
    assert [line.strip() for line in lines] == list(CODES)


SINGLE = ScoreTable("quiz", "f1", True, ("a", "b"), (0,), np.array([[[0.9]], [[0.1]]]))
CONSTANT = ScoreTable("quiz", "loss", False, ("a", "b"), (0, 1, 2), np.array([[[0.5]] * 3, [[0.7]] * 3]))
SAME = dataclasses.replace(binary_table([0.5, 0.7]), values=np.repeat(binary_table([0.5, 0.7]).values[:1], 2, axis=0))


@pytest.mark.parametrize(
    ("code", "table", "values"),
    [
        ("nothing-to-compare", binary_table([0.5]), {"arm": "a"}),
        ("one-seed", binary_table([0.5, 0.7], seeds=1), {"pairs": [["b", "a"]]}),
        ("not-repeated", SINGLE, {"pairs": [["a", "b"]]}),
        ("few-seeds", binary_table([0.5, 0.7], seeds=3), {"seeds": 3}),
        ("few-seeds", binary_table([0.5, 0.7], seeds=4), {"seeds": 4}),
        ("constant-difference", CONSTANT, {"pairs": [["a", "b"]]}),
        ("arms-identical", SAME, {"pairs": [["a", "b"]]}),
        ("few-discordant", SAME, {"fewest": 0.0}),
        ("cannot-decide", binary_table([0.5, 0.52], items=50), {"seeds": 5, "items": 50}),
        ("blocks-cannot-decide", binary_table([0.5, 0.7]), {"blocks": 5, "min_p": 0.0625}),
        ("unequal-seeds", _changed(binary_table([0.5, 0.7]), (0, 4)), {"seeds": {"a": 4, "b": 5}, "most": 5}),
        (
            "unequal-items",
            _changed(binary_table([0.5, 0.7]), (0, slice(None), slice(0, 30))),
            {"common": 270, "items": {"a": 270, "b": 300}},
        ),
        (
            "no-common-items",
            _changed(binary_table([0.5, 0.7]), (0, slice(None), slice(0, 150)), (1, slice(None), slice(150, 300))),
            {"first": "b", "second": "a"},
        ),
        (
            "unpaired-seeds",
            _changed(binary_table([0.5, 0.7], seeds=6), (0, slice(0, 3)), (1, slice(3, 6))),
            {"pairs": [["b", "a"]]},
        ),
        (
            "seeds-identical",
            dataclasses.replace(
                _noisy(), values=np.stack([_noisy().values[0], np.repeat(_noisy().values[1, :1], 8, 0)])
            ),
            {"arms": ["b"]},
        ),
    ],
)
def test_each_remark(code: str, table: ScoreTable, values: dict[str, object]) -> None:
    remark = _remarks(table)[code]
    assert {key: remark.values[key] for key in values} == values
    if code != "blocks-cannot-decide":
        assert (remark.values["task"], remark.values["metric"]) == (table.task, table.metric)


def test_five_seeds_are_not_few() -> None:
    assert "few-seeds" not in _remarks(binary_table([0.5, 0.7], seeds=5))
    assert "cannot-decide" not in _remarks(binary_table([0.5, 0.9], seeds=5))


def test_a_task_without_the_reference_says_so() -> None:
    other = dataclasses.replace(loss_table([1.0, 1.1]), arms=("x", "y"))
    verdict = judge([binary_table([0.5, 0.7]), other], reference="a", resamples=100)
    assert any(remark.code == "reference-missing" and remark.values["task"] == "text" for remark in verdict.remarks)
    assert verdict.num_hypotheses == 1
    assert verdict.tasks[1].comparisons == ()
    assert verdict.tasks[1].tie_groups == ()


def test_a_lost_decision_is_told() -> None:
    """p just below 0.05 among many comparisons."""
    shifts = np.array([0.0, 0.021, 0.021, 0.021])[:, None] + 0.0
    noise = np.random.default_rng(0).normal(scale=0.01, size=(4, 5))
    table = ScoreTable("quiz", "f1", True, tuple("abcd"), tuple(range(5)), (0.5 + shifts + noise)[:, :, None])
    verdict = judge([table], resamples=100)
    lost = [[one.first, one.second] for one in verdict.tasks[0].comparisons if one.p <= 0.05 < one.p_adjusted]
    assert lost
    remark = next(remark for remark in verdict.remarks if remark.code == "multiplicity")
    assert remark.values["pairs"] == lost
    assert remark.values["hypotheses"] == 6


def test_seeds_that_bring_no_noise_of_their_own() -> None:
    generator = np.random.default_rng(5)
    rest = generator.normal(size=(2, 5, 200))
    rest -= rest.mean(axis=2, keepdims=True)
    table = ScoreTable(
        "text", "loss", False, ("a", "b"), tuple(range(5)), 3.0 + rest + np.array([0.0, 0.5])[:, None, None]
    )
    remark = _remarks(table)["no-seed-noise"]
    assert remark.values["rest_std"] == pytest.approx(2**0.5, rel=0.1)
