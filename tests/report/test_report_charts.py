"""Charts before they are drawn: fronts, bands, axes, and what a matrix and a search show."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from subspace.report.bench import Search, Trial
from subspace.report.charts.curves import line_chart
from subspace.report.charts.marks import dashes, fill
from subspace.report.charts.matrix import Cell, matrix
from subspace.report.charts.scatter import Dot, front, scatter
from subspace.report.charts.search import search_chart, value_scale
from subspace.report.costs import COSTS
from subspace.report.groups import Group
from subspace.report.lines import loss_charts
from subspace.report.page.cost import cost_axis
from subspace.report.record import RunRecord
from subspace.report.series import pick_scale

COST = {cost.key: cost for cost in COSTS}


def group(label: str, index: int = 0, *records: RunRecord) -> Group:
    return Group(label, index, records)


def run(name: str, losses: list[float]) -> RunRecord:
    log = [{"event": "step", "step": step, "loss": loss} for step, loss in enumerate(losses, start=1)]
    return RunRecord(Path(name), name, log=log)


@given(st.lists(st.tuples(st.floats(0, 9), st.floats(0, 1)), min_size=1, max_size=12), st.booleans())
def test_the_front_is_what_nothing_beats(points: list[tuple[float, float]], higher: bool) -> None:
    dots = [Dot(group(str(place), place), cost, score, "") for place, (cost, score) in enumerate(points)]
    found = front(dots, higher_is_better=higher)

    def beats(one: Dot, other: Dot) -> bool:
        better = one.score >= other.score if higher else one.score <= other.score
        return one.cost <= other.cost and better and (one.cost, one.score) != (other.cost, other.score)

    assert {(dot.cost, dot.score) for dot in found} == {
        (dot.cost, dot.score) for dot in dots if not any(beats(other, dot) for other in dots)
    }
    assert [dot.cost for dot in found] == sorted(dot.cost for dot in found)


def test_dots_off_the_front_are_fainter_and_names_cover_nothing() -> None:
    dots = [Dot(group(f"arm-{n}", n), 1.0 + n / 1000, 0.5 - n / 1000, "tip") for n in range(8)]
    scale = pick_scale([dot.cost for dot in dots]), pick_scale([dot.score for dot in dots])
    drawn = scatter(dots, *scale, (str, str), ("cost", "score"), "en", higher_is_better=True)
    assert drawn.count("spot b") == 8
    assert drawn.count("beaten") == 7
    crowded = [Dot(group(f"arm-{n}", n), 1.0, 0.5, "tip") for n in range(8)]
    drawn = scatter(crowded, *scale, (str, str), ("cost", "score"), "en", higher_is_better=True)
    assert drawn.count('class="called') <= 4


def test_seeds_are_a_mean_in_a_band() -> None:
    runs = [run("a", [3.0, 2.0, 1.0]), run("b", [5.0, 4.0, 2.0, 9.0]), run("c", [4.0, 3.0, 3.0])]
    [chart] = loss_charts([group("lora", 0, *runs)])
    [line] = chart.lines
    assert (line.steps, line.line) == ([1, 2, 3], [4.0, 3.0, 2.0])  # step 4: less than half of the seeds
    assert (line.low, line.high) == ((3.0, 2.0, 1.0), (5.0, 4.0, 3.0))
    drawn = line_chart(chart, "en")
    assert drawn.count("<polygon") == 1
    assert "lowest to highest" in drawn
    [single] = loss_charts([group("lora", 0, runs[0])])
    assert "<polygon" not in line_chart(single, "en")


def test_a_value_can_be_read_back_from_the_drawing() -> None:
    [chart] = loss_charts([group("lora", 0, run("a", [3.0, 2.0, 1.0, 0.5]))])
    drawn = line_chart(chart, "en")
    low, high, kind = re.search(r'data-y="(\S+) (\S+) (\w+)"', drawn).groups()  # type: ignore[union-attr]
    points = re.search(r'class="line[^>]* points="([^"]+)"', drawn)
    assert points is not None
    assert kind == "linear"
    heights = [1 - float(point.split(",")[1]) / 1000 for point in points[1].split()]
    assert [float(low) + (float(high) - float(low)) * height for height in heights] == pytest.approx(
        [3.0, 2.0, 1.0, 0.5], abs=1e-3
    )


def test_costs_are_written_in_round_units() -> None:
    dots = [Dot(group(str(n), n), n * 2.0**30, 0.5, "") for n in (1, 2, 3, 4)]
    scale, form = cost_axis(dots, COST["memory"])
    assert [form(tick) for tick in scale.ticks] == ["1 GiB", "2 GiB", "3 GiB", "4 GiB"]
    assert COST["time"].unit(90) == (1.0, " s")
    assert COST["time"].unit(7200) == (3600.0, " h")
    assert COST["trained"].unit(873_600) == (1e3, "K")


def test_a_cell_has_the_look_of_its_decision() -> None:
    groups = [group("a", 0), group("b", 1)]
    cells = {("a", "b"): Cell("+3.0", "better", "a − b"), ("b", "a"): Cell("−3.0", "worse", "b − a")}
    drawn = matrix(groups, cells, "en")
    assert re.findall(r'<td class="(\w+)"', drawn) == ["same", "better", "worse", "same"]
    many = [group(f"arm-{n}", n) for n in range(13)]
    pairs = {(one.label, other.label): Cell("0.5", "open", "") for one in many for other in many if one is not other}
    assert ">0.5<" not in matrix(many, pairs, "en")


def test_a_search_shows_rounds_choice_and_failures() -> None:
    trials = (
        Trial(1e-4, 0, 10, 0.9), Trial(1e-3, 0, 10, 0.5), Trial(1e-2, 0, 10, None, error="loss is not finite"),
        Trial(1e-3, 1, 20, 0.4),
    )  # fmt: skip
    search = Search("lora", "quiz", "m", "training.learning_rate", "loss", False, trials, 1e-3, 9.0)
    scale = value_scale([trial.value for trial in trials])
    assert scale.ticks == (1e-4, 1e-3, 1e-2)
    drawn = search_chart(group("lora"), search, scale, pick_scale([0.4, 0.9]), "{:g}".format, "en")
    assert drawn.count('class="spot') == 3
    assert drawn.count("chosen") >= 1
    assert drawn.count(" chosen") - drawn.count(" chosen:") == 1
    assert "0.01: failed (loss is not finite)" in drawn
    assert value_scale([2e-4, 3e-4]).ticks == (2e-4, 3e-4)


def test_arms_of_one_colour_are_told_apart_by_pattern_and_dashes() -> None:
    assert [fill(group("", index)) for index in (0, 6, 13, 24)] == ["b0", "b0 d1", "b1 d2", "b0"]
    assert dashes(group("", 0)) == ""
    assert dashes(group("", 6)) != dashes(group("", 12))
