"""The success criteria of a method against a baseline: the literal gate and what the data can really say, side by side.

| gate | literal | verdict |
|---|---|---|
| E, efficiency | trained parameters <= 0.7 or FLOPs <= 0.8 of the baseline's | the same: counts have no error |
| A, accuracy | score >= baseline - 0.5 points | PASS: the interval of the difference lies above -0.5 points; FAIL:
below | | S, stability | std over seeds <= 0.4 points | PASS: the upper 90 % bound of the std is <= 0.4 points; FAIL:
the lower is above |

Anything else is INCONCLUSIVE. A literal gate is passed by luck: with three seeds, a true std of 0.8 points passes S in
22 of 100 cases. To claim S, three seeds must show a std of at most 0.13 points, five 0.21, ten 0.27.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from subspace.core.errors import DataError, UsageError
from subspace.statistics.findings import Interval
from subspace.statistics.intervals import deviation_interval, t_interval
from subspace.statistics.pairing import lay_out, scores_by_seed
from subspace.statistics.scores import ScoreTable

__all__ = ["FAIL", "INCONCLUSIVE", "PASS", "Cost", "Gate", "Success", "judge_success"]

PASS, FAIL, INCONCLUSIVE = "PASS", "FAIL", "INCONCLUSIVE"

PARAMETER_SHARE, FLOPS_SHARE = 0.7, 0.8
ACCURACY_POINTS, DEVIATION_POINTS = 0.5, 0.4
DEVIATION_LEVEL = 0.8
"""Two-sided, so that either bound of the standard deviation is one of 90 %."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an arm costs.

    Attributes:
        parameters: Trained parameters, or None where unknown.
        flops: Training FLOPs, or None where unknown.
    """

    parameters: float | None = None
    flops: float | None = None


@dataclass(frozen=True, slots=True)
class Gate:
    """One criterion.

    Attributes:
        name: "E", "A" or "S".
        literal: Whether the point estimate passes; None where there is none.
        verdict: PASS, FAIL or INCONCLUSIVE.
        value: The figure that is judged: the smaller of ratio / bound (E), difference to the baseline, positive where
            better (A), standard deviation (S), the last two in metric units.
        bound: What it is held against: 1, -0.5 points, 0.4 points.
        interval: Of the value; None for E.
        parameter_ratio: Trained parameters over the baseline's (E only).
        flops_ratio: FLOPs over the baseline's (E only).
        num_seeds: Seeds that it rests on (A and S).
    """

    name: str
    literal: bool | None
    verdict: str
    value: float | None
    bound: float
    interval: Interval | None = None
    parameter_ratio: float | None = None
    flops_ratio: float | None = None
    num_seeds: int = 0


@dataclass(frozen=True, slots=True)
class Success:
    """All criteria of one arm on one task.

    Attributes:
        task: The task.
        metric: Its metric.
        arm: The arm that is judged.
        baseline: What it is held against.
        gates: E, A and S.
        literal: Whether all literal gates pass; None where one is unknown and none fails.
        verdict: PASS where all verdicts are, FAIL where one is, else INCONCLUSIVE.
    """

    task: str
    metric: str
    arm: str
    baseline: str
    gates: tuple[Gate, Gate, Gate]
    literal: bool | None
    verdict: str


def judge_success(
    table: ScoreTable,
    arm: str,
    baseline: str,
    *,
    arm_cost: Cost | None = None,
    baseline_cost: Cost | None = None,
    one_point: float = 0.01,
    level: float = 0.95,
) -> Success:
    """Return the gates E, A and S of an arm against a baseline.

    Args:
        table: Scores of both.
        arm: The arm that is judged.
        baseline: What it is held against.
        arm_cost: What the arm costs; None where unknown.
        baseline_cost: What the baseline costs.
        one_point: A point in metric units: 0.01 of a share; for a loss, what the reader takes for one.
        level: Of the interval of gate A.

    Raises:
        UsageError: E-CLI-001 when an arm is not in the table, both are the same, or the point or the level is out of
            range.
        DataError: E-DAT-001 when both have no item in common.
    """
    _check(table, arm, baseline, one_point)
    gates = (
        _efficiency(arm_cost or Cost(), baseline_cost or Cost()),
        _accuracy(table, arm, baseline, one_point, level),
        _stability(table, arm, one_point),
    )
    literal = [gate.literal for gate in gates]
    verdicts = [gate.verdict for gate in gates]
    return Success(
        task=table.task,
        metric=table.metric,
        arm=arm,
        baseline=baseline,
        gates=gates,
        literal=False if False in literal else (None if None in literal else True),
        verdict=FAIL if FAIL in verdicts else (INCONCLUSIVE if INCONCLUSIVE in verdicts else PASS),
    )


def _efficiency(arm: Cost, baseline: Cost) -> Gate:
    ratios = [_ratio(arm.parameters, baseline.parameters), _ratio(arm.flops, baseline.flops)]
    shares = [
        ratio / bound for ratio, bound in zip(ratios, (PARAMETER_SHARE, FLOPS_SHARE), strict=True) if ratio is not None
    ]
    value = min(shares) if shares else None
    literal = None if value is None else value <= 1.0
    if literal is False and None in ratios:
        # the figure that is not known could still pass
        literal = None
    verdict = {True: PASS, False: FAIL, None: INCONCLUSIVE}[literal]
    return Gate("E", literal, verdict, value, 1.0, None, ratios[0], ratios[1])


def _accuracy(table: ScoreTable, arm: str, baseline: str, one_point: float, level: float) -> Gate:
    pair, bound = lay_out(table, arm, baseline), -ACCURACY_POINTS * one_point
    if pair is None:
        raise DataError(
            "E-DAT-001",
            where=f"scores of {table.task} ({table.metric})",
            found=f"no item that both {arm} and {baseline} have",
            expected="common items",
            action="Evaluate both on the same items.",
        )
    found = t_interval(pair.spread, level)
    low, high = (found.low, found.high) if table.higher_is_better else (-found.high, -found.low)
    value = found.estimate if table.higher_is_better else -found.estimate
    verdict = PASS if low > bound else (FAIL if high < bound else INCONCLUSIVE)
    interval = Interval(value, low, high, level, found.method)
    return Gate("A", value >= bound, verdict, value, bound, interval, num_seeds=pair.spread.num_seeds)


def _stability(table: ScoreTable, arm: str, one_point: float) -> Gate:
    bound, place = DEVIATION_POINTS * one_point, table.arms.index(arm)
    items = np.flatnonzero(table.items_present()[place])
    scores = scores_by_seed(table, arm, items) if items.size else np.empty(0)
    if scores.size < 2:
        return Gate("S", None, INCONCLUSIVE, None, bound, num_seeds=int(scores.size))
    interval = deviation_interval(scores, DEVIATION_LEVEL)
    verdict = PASS if interval.high <= bound else (FAIL if interval.low > bound else INCONCLUSIVE)
    return Gate(
        "S", interval.estimate <= bound, verdict, interval.estimate, bound, interval, num_seeds=int(scores.size)
    )


def _ratio(part: float | None, whole: float | None) -> float | None:
    return None if part is None or not whole else part / whole


def _check(table: ScoreTable, arm: str, baseline: str, one_point: float) -> None:
    for name in (arm, baseline):
        if name not in table.arms:
            raise UsageError(
                "E-CLI-001",
                where=f"success on {table.task}",
                found=f"no arm is called '{name}'",
                expected=f"one of {', '.join(table.arms)}",
                action="Name one of the compared arms.",
            )
    if arm == baseline or not one_point > 0.0:
        raise UsageError(
            "E-CLI-001",
            where=f"success on {table.task}",
            found=f"arm {arm}, baseline {baseline}, a point of {one_point!r}",
            expected="two different arms and a positive point",
            action="Correct what is compared.",
        )
