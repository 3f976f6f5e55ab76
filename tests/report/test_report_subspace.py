"""What subspaces did: read from any log, drawn on page and pictures, tabled, and documented as it is written."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pytest
from parsed_page import Page

from subspace.report.compare import compare
from subspace.report.groups import group_runs
from subspace.report.heat import energy_maps, energy_range, module_place
from subspace.report.lines import subspace_charts
from subspace.report.load import read_run, read_runs
from subspace.report.page.document import write_page
from subspace.report.record import RunRecord
from subspace.report.refreshes import FIGURES, captured_by_weight, figure_points, read_refreshes
from subspace.report.series import pick_scale
from subspace.report.study import study
from subspace.report.subspace_pictures import energy_picture, subspace_curves
from subspace.report.words.strings import STRINGS

MakeRun = Callable[..., Path]

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "log-schema.md"
FIGURE = {figure.key: figure for figure in FIGURES}
TEXT = STRINGS["en"]


def refresh(step: int, weights: Mapping[str, Any], seconds: float = 0.5, **further: Any) -> dict[str, Any]:
    means: dict[str, list[float]] = {}
    for figures in weights.values():
        for key, value in figures.items():
            means.setdefault(key, []).append(value)
    return {
        "schema": 1,
        "event": "method",
        "step": step,
        "kind": "refresh",
        "num_weights": len(weights),
        **{key: sum(values) / len(values) for key, values in means.items()},
        "weights": weights,
        "machine": {"refresh_seconds": seconds},
        **further,
    }


def figures(step: int, energy: float, watched: bool = False) -> dict[str, float]:
    found = {"captured_energy": energy, "effective_rank": 5.5}
    if step > 1:
        found |= {"overlap": 0.75, "largest_angle_degrees": 60.0}
    return found | ({"drift": 0.25, "update_norm": 0.01} if watched else {})


def whole_run(layers: int = 2, kinds: Iterable[str] = ("self_attn.q_proj", "mlp.up_proj")) -> list[dict[str, Any]]:
    names = [f"model.layers.{layer}.{kind}.weight" for layer in range(layers) for kind in kinds]
    return [
        refresh(step, {name: figures(step, 0.5 + place / 100, place == 0) for place, name in enumerate(names)})
        for step in (1, 11, 21, 31)
    ]


def add(folder: Path, records: Iterable[Any]) -> Path:
    log = folder / "unified_log.jsonl"
    with log.open("a", encoding="utf-8") as file:
        file.writelines(json.dumps(record) + "\n" for record in records)
    return folder


@pytest.fixture
def two_runs(make_run: MakeRun, tmp_path: Path) -> Path:
    add(make_run("a", method="galore"), whole_run())
    add(make_run("b", method="fira"), whole_run())
    make_run("c", method="lora")
    return tmp_path / "outputs"


def section_of(text: str, name: str) -> str:
    start = text.index(f'<section id="{name}">')
    return text[start : text.index("</section>", start)]


def test_a_line_is_the_mean_over_weights_each_as_of_its_latest_refresh() -> None:
    found = read_refreshes(
        [
            refresh(1, {"a": {"captured_energy": 0.2}, "b": {"captured_energy": 0.6}}),
            refresh(2, {"a": {"captured_energy": 0.4, "overlap": 0.9}}),
            refresh(3, {"b": {"captured_energy": 0.8, "overlap": 0.5}}),
        ]
    )
    steps, values = figure_points(found, FIGURE["captured_energy"])
    assert (steps, values) == ([1, 2, 3], pytest.approx([0.4, 0.5, 0.6]))
    assert figure_points(found, FIGURE["overlap"]) == ([2, 3], pytest.approx([0.9, 0.7]))
    assert figure_points(found, FIGURE["drift"]) == ([], [])


def test_a_line_begins_when_half_of_its_weights_are_known() -> None:
    found = read_refreshes([refresh(step, {str(step): {"overlap": step / 10}}) for step in range(1, 6)])
    assert figure_points(found, FIGURE["overlap"]) == ([3, 4, 5], pytest.approx([0.2, 0.25, 0.3]))


def test_without_weights_the_means_of_the_record_are_shown() -> None:
    found = read_refreshes([{"event": "method", "kind": "refresh", "step": 4, "overlap": 0.3, "weights": None}])
    assert figure_points(found, FIGURE["overlap"]) == ([4], [0.3])


def test_seconds_are_shown_as_they_were_and_summed_up() -> None:
    found = read_refreshes([refresh(1, {}, 2.0), refresh(3, {}, 0.5), refresh(5, {}, machine={}), refresh(7, {}, 1.0)])
    assert figure_points(found, FIGURE["refresh_seconds"]) == ([1, 3, 7], [2.0, 0.5, 1.0])
    assert figure_points(found, FIGURE["refresh_seconds_so_far"]) == ([1, 3, 7], [2.0, 2.5, 3.5])


def test_the_last_record_of_a_step_counts_and_steps_are_in_order() -> None:
    found = read_refreshes([refresh(9, {}), refresh(3, {}, 1.0), refresh(9, {}, 4.0)])
    assert [(refresh.step, refresh.seconds) for refresh in found] == [(3, 1.0), (9, 4.0)]


@pytest.mark.parametrize(
    "record",
    [
        {"kind": "budget", "step": 1, "captured_energy": 0.5},
        {"kind": "refresh", "captured_energy": 0.5},
        {"kind": "refresh", "step": None, "captured_energy": 0.5},
        {"kind": "refresh", "step": 1, "captured_energy": "much", "weights": ["a"], "machine": 7},
        {"kind": "refresh", "step": 1, "captured_energy": 1.5, "overlap": -1, "largest_angle_degrees": 1e300},
        {"kind": "refresh", "step": 1, "weights": {"a": {"captured_energy": None}, "b": 3}, "machine": {"x": [1]}},
        {"kind": ["refresh"], "step": 1, "unknown": {"deep": 1}, "update_norm": True},
    ],
)
def test_what_makes_no_sense_is_left_out(record: dict[str, Any], make_run: MakeRun, tmp_path: Path) -> None:
    folder = add(make_run(steps=3), [{"schema": 1, "event": "method", **record}])
    found = compare([folder], tmp_path / "out")
    assert all(figure_points(read_run(folder).refreshes, figure) == ([], []) for figure in FIGURES)
    assert (found.subspace, found.energy) == (None, None)
    assert 'id="subspace"' not in found.page.read_text(encoding="utf-8")


def test_rounding_beyond_the_range_is_moved_into_it() -> None:
    found = read_refreshes([refresh(1, {"a": {"captured_energy": 1.0002, "largest_angle_degrees": 90.0001}})])
    assert found[0].weights == {"a": {"captured_energy": 1.0, "largest_angle_degrees": 90.0}}


def test_a_torn_record_costs_itself_only(make_run: MakeRun) -> None:
    folder = add(make_run(), whole_run())
    log = folder / "unified_log.jsonl"
    log.write_bytes(log.read_bytes() + json.dumps(refresh(41, {}))[:70].encode())
    assert [found.step for found in read_run(folder).refreshes] == [1, 11, 21, 31]


def test_the_page_shows_every_figure_for_the_runs_that_have_it(two_runs: Path, tmp_path: Path) -> None:
    text = compare([two_runs], tmp_path / "out").page.read_text(encoding="utf-8")
    page = Page(text)
    section = section_of(text, "subspace")
    for figure in FIGURES:
        for word in (TEXT[f"figure_{figure.key}"], TEXT[f"about_{figure.key}"]):
            assert section.count(word) >= 1, word
    assert section.count('class="chart"') == len(FIGURES)
    assert section.count('class="line') == 2 * len(FIGURES)  # two runs in each; lora is in none
    assert "lora" not in section
    for written in ("50 %", "60°", "0.01", "0.4 s"):
        assert f'<span class="ytick">{written}</span>' in section, written
    names = {words.get("href") for tag, words in page.tags if tag == "a"}
    assert {"subspace.png", "captured_energy.png", "refreshes.csv"} <= names
    assert all((tmp_path / "out" / str(name)).is_file() for name in names)
    assert not {"img", "iframe"} & {tag for tag, _ in page.tags}
    assert "url(" not in text
    assert "http" not in text.replace("http-equiv", "")


def test_runs_without_refreshes_show_none_of_it(make_run: MakeRun, tmp_path: Path) -> None:
    found = compare([make_run()], tmp_path / "out")
    assert (found.subspace, found.energy, found.refreshes) == (None, None, None)
    assert 'id="subspace"' not in found.page.read_text(encoding="utf-8")
    assert not {"subspace.png", "captured_energy.png", "refreshes.csv"} & {
        path.name for path in (tmp_path / "out").iterdir()
    }


def test_refreshes_alone_make_a_page(tmp_path: Path) -> None:
    folder = tmp_path / "bare"
    folder.mkdir()
    add(folder, [refresh(1, {"odd<i>": figures(1, 0.5)})])
    found = compare([folder], tmp_path / "out")
    page = Page(found.page.read_text(encoding="utf-8"))
    assert TEXT["figure_captured_energy"] in page.text
    assert TEXT["figure_overlap"] not in page.text
    assert "odd<i>" in page.text
    assert found.curves is None


def test_points_are_marked_where_they_are_few(make_run: MakeRun, tmp_path: Path) -> None:
    few = add(make_run("few"), whole_run())
    many = add(make_run("many", steps=60), [refresh(step, {"w": figures(2, 0.5)}) for step in range(1, 60)])
    for folder, marked in ((few, True), (many, False)):
        write_page(study([read_run(folder)]), tmp_path / "page.html")
        text = (tmp_path / "page.html").read_text(encoding="utf-8")
        section = section_of(text, "subspace")
        assert ('class="point' in section) == marked


def test_the_axis_of_a_share_stays_in_its_range_and_does_not_magnify_noise() -> None:
    assert pick_scale([0.999, 1.0], within=(0.0, 1.0)).high == 1.0
    scale = pick_scale([0.5, 0.5001], within=(0.0, 1.0))
    assert scale.high - scale.low == pytest.approx(0.02)
    assert scale.place(0.50005) == pytest.approx(0.5)
    assert not pick_scale([0.01, 0.9], within=(0.0, 1.0)).logarithmic
    seconds = pick_scale([0.01, 4.0], from_zero=True)
    assert (seconds.low, seconds.logarithmic) == (0.0, False)


def test_a_run_that_reached_the_end_is_named_at_the_edge(make_run: MakeRun, tmp_path: Path) -> None:
    add(make_run("whole", method="galore", steps=40), whole_run())
    add(make_run("early", method="fira", steps=31, finished=False), whole_run())
    chart = subspace_charts(group_runs(read_runs([tmp_path / "outputs"])))[0]
    assert {end.group.label: end.step for end in chart.ends} == {"galore": None, "fira": 31}


@pytest.mark.parametrize(
    ("name", "kind", "layer"),
    [
        ("model.layers.3.self_attn.q_proj.weight", "model/layers/self_attn/q_proj", 3),
        ("lm_head.weight", "lm_head", None),
        ("h.0.experts.17.up.weight", "h/experts/*/up", 0),
        ("base.layers.2.q_proj.lora_A.default.weight", "base/layers/q_proj/lora_A", 2),
        ("weight", "weight", None),
        ("7", "7", 7),
        ("", "", None),
        ("layers.99999999.x", "layers/99999999/x", None),
    ],
)
def test_a_weight_has_a_kind_and_a_layer(name: str, kind: str, layer: int | None) -> None:
    path, found = module_place(name)
    assert ("/".join(path), found) == (kind, layer)


def test_a_map_has_a_row_for_each_kind_and_a_column_for_each_layer() -> None:
    names = ["embed.weight", *(f"m.{layer}.{kind}.weight" for layer in (0, 2) for kind in ("a.out", "b.out", "q"))]
    values = dict(zip(names, (0.9, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
    log = [
        refresh(1, {name: {"captured_energy": value} for name, value in values.items()}),
        refresh(2, {"m.0.q.weight": {"captured_energy": 0.7}}),
    ]
    [found] = energy_maps(group_runs([RunRecord(Path("run"), "run", log=log)]))
    assert (found.layers, found.kinds) == ((0, 2), ("embed", "a.out", "b.out", "q"))
    assert found.cells["embed", None] == 0.9
    assert found.cells["q", 0] == pytest.approx(0.5)  # the mean over its refreshes
    assert (found.cells["a.out", 0], found.cells["b.out", 2]) == (0.1, 0.5)
    assert energy_range([found]) == (0.1, 0.9)
    assert found.mean == pytest.approx((0.9 + 0.1 + 0.2 + 0.5 + 0.4 + 0.5 + 0.6) / 7)


def test_runs_of_a_group_share_a_map_of_their_means() -> None:
    records = [
        RunRecord(
            Path(str(seed)), str(seed), {"method": {"name": "galore"}, "training": {"seed": seed}},
            log=[refresh(1, {"l.0.q.weight": {"captured_energy": seed / 10}})],
        )
        for seed in (2, 4)
    ]  # fmt: skip
    [found] = energy_maps(group_runs(records))
    assert found.cells == {("q", 0): pytest.approx(0.3)}


@pytest.mark.parametrize(("layers", "numbers"), [(8, True), (9, False)])
def test_cells_hold_numbers_where_there_is_room(layers: int, numbers: bool, make_run: MakeRun, tmp_path: Path) -> None:
    record = read_run(add(make_run(method="galore"), whole_run(layers)))
    write_page(study([record]), tmp_path / "page.html")
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    cells = re.findall(r'<i class="[a-z]*" style="--v:(\d+)%" data-tip="([^"]+)">([\d.]*)</i>', text)
    assert len(cells) == 2 * layers
    assert {heat for heat, _, _ in cells} >= {"0", "100"}
    assert ("0", "q_proj, 0: 50.00 %", "50.0" if numbers else "") in cells
    assert all(bool(shown) == numbers for _, _, shown in cells)
    Page(text)


def test_the_pictures_show_runs_in_their_colours_and_are_the_same_again(two_runs: Path, tmp_path: Path) -> None:
    from matplotlib.image import imread

    records = read_runs([two_runs])
    for draw in (subspace_curves, energy_picture):
        assert draw(records, tmp_path / "1.png")
        assert draw(records, tmp_path / "2.png")
        assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
        height, width = imread(tmp_path / "1.png").shape[:2]
        assert width > 1800
        assert height > (1900 if draw is subspace_curves else 300)
        lora = [record for record in records if record.method == "lora"]
        assert not draw(lora, tmp_path / "none.png")
    pixels = (imread(tmp_path / "1.png")[..., :3] * 255).round().astype(int).reshape(-1, 3)
    shown = {tuple(colour) for colour in pixels[::7].tolist()}
    assert {(0xE3, 0xEF, 0xEF), (0x0B, 0x55, 0x63)} <= shown  # both ends of the range


def test_the_tables_hold_every_refresh(two_runs: Path, tmp_path: Path) -> None:
    found = compare([two_runs], tmp_path / "out")
    assert found.refreshes is not None
    with found.refreshes.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["run", "method", "fidelity", "model", "seed", "step", "weight", "metric", "value"]
    assert {row["run"] for row in rows} == {"a", "b"}
    first = [row for row in rows if row["run"] == "a" and row["weight"] == "model.layers.0.self_attn.q_proj.weight"]
    assert [row["value"] for row in first if row["metric"] == "captured_energy"] == ["0.5"] * 4
    assert [row["step"] for row in first if row["metric"] == "overlap"] == ["11", "21", "31"]
    with found.tidy.open(encoding="utf-8", newline="") as file:
        tidy = [row for row in csv.DictReader(file) if row["run"] == "b"]
    energy = [(row["step"], float(row["value"])) for row in tidy if row["metric"] == "refresh.captured_energy"]
    assert energy == [(step, pytest.approx(0.515)) for step in ("1", "11", "21", "31")]
    assert [row["value"] for row in tidy if row["metric"] == "machine.refresh_seconds"] == ["0.5"] * 4
    assert [row["value"] for row in tidy if row["metric"] == "refresh.num_weights"] == ["4.0"] * 4


def test_a_setting_that_one_run_leaves_out_is_not_told(make_run: MakeRun, tmp_path: Path) -> None:
    make_run("plain", method="galore", steps=2)
    other = make_run("other", method="galore", steps=2)
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("  rank: 8\n", "  rank: 8\n  preset: fast\n"))
    labels = {group.records[0].name: group.label for group in group_runs(read_runs([tmp_path / "outputs"]))}
    assert labels == {"plain": "galore", "other": "galore, preset fast"}


def test_the_document_names_what_is_read() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    section = text[text.index("### A `method` record of kind `refresh`") : text.index("## `skip`")]
    documented = re.findall(r"^- `([\w.]+)`: ", section, re.MULTILINE)
    read = {f"machine.{key}" if key == "refresh_seconds" else key for key in FIGURE} - {"refresh_seconds_so_far"}
    assert set(documented) == read | {"kind", "num_weights", "weights"}
    example = json.loads(re.search(r"```json\n(.*)\n```", section)[1])
    assert set(example) == {name for name in documented if "." not in name} | {"schema", "event", "step", "machine"}
    [refresh] = read_refreshes([example])
    assert set(refresh.weights["model.layers.0.self_attn.q_proj.weight"]) == set(refresh.means)


def test_what_the_microscope_writes_is_what_is_read_and_documented() -> None:
    import torch

    from subspace.optim import GaLoreAdamW
    from subspace.optim.microscope import Microscope

    torch.manual_seed(0)
    net = torch.nn.ModuleList([torch.nn.Linear(24, 16, bias=False) for _ in range(2)])
    optimizer = GaLoreAdamW([{"params": list(net.named_parameters()), "rank": 4}], lr=1e-2, refresh_interval=1)
    optimizer.refresher.microscope = Microscope(["0.weight"])
    log = []
    for step in (1, 2):
        for parameter in net.parameters():
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        log.append({"event": "method", "step": step, **optimizer.refresher.microscope.event()})
    section = DOCUMENT.read_text(encoding="utf-8")
    assert all(f"- `{key}`: " in section for key in log[1].keys() - {"event", "step", "machine"})
    assert log[1]["machine"].keys() == {"refresh_seconds"}
    found = read_refreshes(log)
    logged = {figure.key for figure in FIGURES} - {"refresh_seconds", "refresh_seconds_so_far"}
    assert set(found[1].weights["0.weight"]) == logged
    assert set(found[1].weights["1.weight"]) == logged - {"drift", "update_norm"}
    assert all(figure_points(found, figure)[0] for figure in FIGURES)
    assert captured_by_weight(found).keys() == {"0.weight", "1.weight"}
