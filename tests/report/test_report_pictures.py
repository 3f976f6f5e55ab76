"""Pictures: numbers made fit for them, and the PNG itself."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.forged_bench import forge_bench
from subspace.core.errors import DataError
from subspace.report.curves import loss_curves
from subspace.report.groups import group_runs
from subspace.report.load import read_runs
from subspace.report.series import pick_scale, smooth, spread, step_scale, thin
from subspace.report.study import study_of
from subspace.report.verdict_pictures import forest_picture, pareto_picture, search_picture

MakeRun = Callable[..., Path]


def test_smoothing_follows_without_bias_and_quiets_noise() -> None:
    assert smooth([5.0] * 50) == pytest.approx([5.0] * 50)
    stream = random.Random(0)
    noisy = [1.0 + stream.gauss(0, 0.3) for _ in range(400)]
    smoothed = smooth(noisy)
    assert smoothed[0] == noisy[0]
    tail = smoothed[100:]
    assert max(abs(value - 1.0) for value in tail) < 0.3
    assert len(smoothed) == len(noisy)


@given(st.integers(1, 1200), st.integers(0, 10_000))
def test_thinning_keeps_ends_and_extremes(count: int, seed: int) -> None:
    stream = random.Random(seed)
    values = [stream.gauss(0, 1) for _ in range(count)]
    steps = list(range(len(values)))
    points = thin(steps, values, most=100)
    assert len(points) <= 110
    assert points == sorted(points, key=lambda point: point[0])
    assert (points[0], points[-1]) == ((0, values[0]), (len(values) - 1, values[-1]))
    assert {min(values), max(values)} <= {value for _, value in points}
    assert set(points) <= set(zip(steps, values, strict=True))


@given(st.lists(st.floats(1e-6, 1e6) | st.just(0.0), min_size=1, max_size=50))
def test_scales_hold_their_values_and_have_ticks(values: list[float]) -> None:
    scale = pick_scale(values)
    assert scale.low < scale.high
    assert all(0 <= scale.place(value) <= 1 for value in values)
    assert scale.place(max(values)) >= scale.place(min(values))
    assert all(scale.low <= tick <= scale.high * (1 + 1e-9) for tick in scale.ticks)
    assert len(scale.ticks) <= 24


def test_scales_are_round_logarithmic_over_a_wide_range_and_cut_single_spikes() -> None:
    assert pick_scale([0.4, 2.0]).ticks == (0.5, 1.0, 1.5, 2.0)
    assert not pick_scale([0.4, 2.0]).logarithmic
    assert pick_scale([0.1, 10.0]).logarithmic
    spiked = pick_scale([1.0, 1.1] * 200 + [1000.0])
    assert spiked.high < 2
    assert (spiked.place(1000.0), spiked.place(-1.0)) == (1.0, 0.0)
    assert step_scale(300).ticks == (0, 100, 200, 300)
    assert all(tick == int(tick) for last in range(1, 60) for tick in step_scale(last).ticks)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12), st.floats(0.01, 0.08))
def test_labels_keep_their_distance_and_order(places: list[float], gap: float) -> None:
    moved = spread(places, gap)
    order = sorted(range(len(places)), key=lambda index: places[index])
    steps = [moved[after] - moved[before] for before, after in itertools.pairwise(order)]
    assert all(step >= gap - 1e-5 for step in steps)
    assert all(-1e-6 <= place <= 1 + 1e-6 for place in moved)
    if all(places[after] - places[before] >= gap for before, after in itertools.pairwise(order)):
        assert moved == pytest.approx(places, abs=1e-5)


def test_runs_that_differ_by_seed_alone_are_one_group(make_run: MakeRun, tmp_path: Path) -> None:
    for rank in (4, 16):
        for seed in (1, 2):
            make_run(f"lora-r{rank}-s{seed}", rank=rank, seed=seed, steps=2)
    make_run("other", method="dora", steps=2)
    groups = group_runs(read_runs([tmp_path / "outputs"]))
    assert [(group.label, len(group.records)) for group in groups] == [
        ("lora, rank 16", 2),
        ("lora, rank 4", 2),
        ("dora", 1),
    ]
    assert [group.index for group in groups] == [0, 1, 2]


def test_runs_that_differ_in_much_or_have_no_recipe_are_called_by_their_folder(
    make_run: MakeRun, tmp_path: Path
) -> None:
    make_run("one", rank=4, data="a.json", model="m1", steps=2)
    make_run("two", rank=8, data="b.json", model="m2", steps=2)
    bare = tmp_path / "outputs" / "bare"
    bare.mkdir()
    (bare / "unified_log.jsonl").write_text('{"event":"step","step":1,"loss":1}\n')
    assert [group.label for group in group_runs(read_runs([tmp_path / "outputs"]))] == ["bare", "one", "two"]


def test_a_method_and_a_folder_of_one_name_are_told_apart(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("first", method="dora", steps=2)
    bare = tmp_path / "outputs" / "dora"
    bare.mkdir()
    (bare / "unified_log.jsonl").write_text('{"event":"step","step":1,"loss":1}\n')
    assert [group.label for group in group_runs(read_runs([tmp_path / "outputs"]))] == ["dora", "first"]


def read_png(path: Path, at_least: int = 60) -> tuple[int, int, set[tuple[int, int, int]]]:
    """Return width, height and the colours that cover `at_least` pixels."""
    import numpy
    from matplotlib.image import imread

    pixels = (imread(path)[..., :3] * 255).round().astype(int)
    colours, counts = numpy.unique(pixels.reshape(-1, 3), axis=0, return_counts=True)
    return pixels.shape[1], pixels.shape[0], {tuple(colour) for colour in colours[counts >= at_least].tolist()}


def test_the_picture_shows_every_group_in_its_colour(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("a")
    make_run("b", method="dora", end=0.8)
    path = tmp_path / "loss.png"
    loss_curves(read_runs([tmp_path / "outputs"]), path)
    width, height, colours = read_png(path, at_least=1000)  # more than the names alone
    assert width > 2.5 * height > 1000  # two panels, sharp
    assert {(0x0A, 0x63, 0xB0), (0xCD, 0x79, 0x31), (255, 255, 255)} <= colours


def test_one_panel_without_validation_and_the_same_bytes_again(make_run: MakeRun, tmp_path: Path) -> None:
    records = read_runs([make_run("a", eval_every=0)])
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    loss_curves(records, first)
    loss_curves(records, second)
    width, height, _ = read_png(first)
    assert width < 2 * height
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("line", ['{"event":"step","step":1,"loss":2}', '{"event":"eval","step":0,"loss":0}'])
def test_a_single_point_is_drawn(line: str, tmp_path: Path) -> None:
    folder = tmp_path / "\u00a0"  # a name without ink
    folder.mkdir()
    (folder / "unified_log.jsonl").write_text(line + "\n")
    loss_curves(read_runs([folder]), tmp_path / "loss.png")
    assert (0x0A, 0x63, 0xB0) in read_png(tmp_path / "loss.png", at_least=20)[2]


def test_many_runs_and_names_in_other_scripts_are_drawn(make_run: MakeRun, tmp_path: Path) -> None:
    for index in range(14):
        make_run(f"𓀀试验-{index}-" + "长" * 40, rank=index + 1, data=f"{index}.json", model=f"m{index}", steps=25)
    loss_curves(read_runs([tmp_path / "outputs"]), tmp_path / "loss.png")
    assert (tmp_path / "loss.png").stat().st_size > 20_000


def test_marks_beyond_the_scale_stay_in_the_picture(tmp_path: Path) -> None:
    for run in range(6):
        found = [1.0 + (run + step) % 5 / 10 for step in range(40)]
        found[0] = 900.0 if run == 5 else found[0]
        lines = [
            json.dumps({"event": "eval", "split": "validation", "step": s, "loss": v}) for s, v in enumerate(found)
        ]
        (tmp_path / str(run)).mkdir()
        (tmp_path / str(run) / "unified_log.jsonl").write_text("\n".join(lines) + "\n")
    loss_curves(read_runs([tmp_path]), tmp_path / "loss.png")  # a warning of the layout would be an error


@pytest.mark.parametrize(("count", "name"), [(40, ""), (10, "a-setting-that-goes-on-and-on-and-on-and-on-and-on-and-")])
def test_many_arms_and_long_names_leave_room_for_the_axes(count: int, name: str, tmp_path: Path) -> None:
    arms = [f"galore, {name}rank {rank}" for rank in range(count)]
    found = study_of([forge_bench(tmp_path / "bench", arms=arms, seeds=(0,), items=4, steps=9)])
    for draw in (forest_picture, pareto_picture, search_picture):
        assert draw(found, tmp_path / "picture.png")  # a warning of the layout would be an error


def test_no_loss_at_all_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "unified_log.jsonl").write_text(json.dumps({"event": "run_start", "step": 0}) + "\n")
    with pytest.raises(DataError, match="E-DAT-001"):
        loss_curves(read_runs([tmp_path]), tmp_path / "loss.png")
    assert not (tmp_path / "loss.png").exists()
