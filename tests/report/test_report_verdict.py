"""The verdict on a page: in words that follow from the numbers, and as tables, pictures and JSON beside it."""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from parsed_page import Page

from report.forged_bench import forge_bench, write_json
from subspace.report.compare import Comparison, compare
from subspace.report.disagreement import disagreement
from subspace.report.measures import Measure
from subspace.report.page.gates import successes
from subspace.report.page.power import power_line
from subspace.report.page.remarks import sentence
from subspace.report.page.verdict import lines, standing, title
from subspace.report.study import study_of
from subspace.report.words.phrase import plain
from subspace.report.words.strings import STRINGS
from subspace.statistics import remarks as statistics_remarks
from subspace.statistics.findings import Power, Remark
from subspace.statistics.scores import ScoreTable
from subspace.statistics.verdict import judge

ARMS = ("full", "lora", "galore")


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Comparison:
    folder = tmp_path_factory.mktemp("verdict")
    return compare([forge_bench(folder / "bench", arms=ARMS, seeds=(0, 1, 2), items=40)], folder / "out")


def judged(means: Mapping[str, float], seeds: int = 5, noise: float = 0.01, reference: str | None = None):  # type: ignore[no-untyped-def]
    stream = np.random.default_rng(0)
    shape = (len(means), seeds, 60)
    values = np.array(list(means.values()))[:, None, None] + stream.normal(0, noise, shape)
    table = ScoreTable("quiz", "score", True, tuple(means), tuple(range(seeds)), values)
    return judge([table], reference=reference, resamples=100).tasks[0]


def test_standing_follows_the_decisions() -> None:
    task = judged({"a": 0.5, "b": 0.9, "c": 0.9, "d": 0.3})
    found = standing(task, None)
    assert set(found.leaders) == {"b", "c"}
    assert (found.ahead, found.behind) == ((), ("a", "d"))
    against = standing(judged({"a": 0.5, "b": 0.9, "c": 0.3, "d": 0.5}, reference="a"), "a")
    assert (against.about, against.ahead, against.level, against.behind) == ("a", ("b",), ("d",), ("c",))


def read_csv(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def told(comparison: Comparison, language: str) -> str:
    found = [plain(title(comparison.study), language)]
    for name, sentences in lines(comparison.study):
        found += [plain(name, language), *(plain(part, language) for part in sentences)]
    return "\n".join(found)


def test_the_words_hold_the_numbers_of_the_verdict(comparison: Comparison) -> None:
    study = comparison.study
    assert study.verdict is not None
    for language in STRINGS:
        text = told(comparison, language)
        for scored, task in zip(study.scored, study.verdict.tasks, strict=True):
            measure = study.measure(scored)
            best = task.ranking[0]
            for part in (task.task, best.arm, measure.value(best.mean), plain(measure.name, language)):
                assert part in text
            assert task.power.detectable is not None
            assert plain(measure.difference(task.power.detectable), language) in text


def test_titles_say_who_leads(tmp_path: Path) -> None:
    def headline(skills: Mapping[str, list[float]], **settings: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        for arm, scores in skills.items():
            for seed, score in enumerate(scores):
                run = folder / f"{arm}-{seed}"
                run.mkdir(parents=True)
                recipe = {"method": {"name": arm}, "training": {"seed": seed}, "model": {"model_name_or_path": "m"}}
                (run / "config.yaml").write_text(json.dumps(recipe))
                (run / "unified_log.jsonl").write_text("")
                write_json(run / "metrics.json", {"test": {"accuracy": score}})
        return plain(title(study_of([folder], **settings)), "en")  # type: ignore[arg-type]

    stream = np.random.default_rng(1)
    low, middle, high = ([base + stream.normal(0, 0.005) for _ in range(5)] for base in (0.3, 0.5, 0.7))
    noisy = [0.50, 0.51, 0.49, 0.515, 0.495]
    assert headline({"a": low, "b": high, "c": middle}) == "b is best."
    assert headline({"a": low, "b": noisy, "c": noisy[::-1]}) == "b and c share the lead."
    assert headline({"b": noisy, "c": noisy[::-1]}) == "No method stands out."
    assert headline({"a": low, "b": high}, reference="a") == "b beats a."
    assert headline({"a": high, "b": low}, reference="a") == "Nothing beats a."
    assert headline({"b": noisy, "c": noisy[::-1]}, reference="b") == "Nothing is told apart from b."
    assert headline({"a": [0.5], "b": [0.6]}) == "b scores best, but nothing tells whether by chance."


@pytest.mark.parametrize(
    ("seeds", "items", "expected"),
    [
        (7, 900, "train 7 seeds on these items, or score 900 items"),
        (7, None, "train 7 seeds; more items alone"),
        (None, 900, "score 900 items; more seeds alone"),
        (None, None, "Neither more seeds nor more items alone"),
    ],
)
def test_the_power_line_says_what_it_would_take(seeds: int | None, items: int | None, expected: str) -> None:
    power = Power(0.03, 0.01, seeds, items, (), 0.05, num_seeds=3, num_items=200)
    text = plain(power_line(power, Measure("accuracy", True)), "en")
    assert text.startswith("With 3 seeds × 200 items, a true difference of 3.0 points is found in 80 % of all cases (")
    assert expected in text
    many = dataclasses.replace(power, detectable=1.03, detectable_alone=0.154)
    told = plain(power_line(many, Measure("accuracy", True)), "en")
    assert "103" not in told, "no two shares differ by more than all"
    assert "15.4 points would be if it were the only one" in told
    assert "15.4" in plain(power_line(many, Measure("accuracy", True)), "zh")
    none = dataclasses.replace(many, detectable_alone=1.5)
    assert "no difference is sure" in plain(power_line(none, Measure("accuracy", True)), "en")
    assert "150" not in plain(power_line(none, Measure("accuracy", True)), "zh")
    assert "three seeds" in plain(power_line(Power(None, 0.01, None, None, (), 0.05), Measure("accuracy", True)), "en")


def test_every_remark_of_the_statistics_has_words(comparison: Comparison) -> None:
    quiet = {"nothing-to-compare", "no-seed-noise"}
    assert set(statistics_remarks.CODES) - quiet == {
        code for code in statistics_remarks.CODES if f"remark_{code.replace('-', '_')}" in STRINGS["en"]
    }
    values = {
        "pairs": [["a", "b"]], "seeds": 3, "t_factor": 4.3, "normal_factor": 1.96, "largest": 0.02, "power": 0.2,
        "detectable": 0.1, "hypotheses": 3, "blocks": 3, "min_p": 0.25, "needed": 0.01, "common": 3, "most": 5,
        "items": {"a": 3}, "arms": ["a"], "first": "a", "second": "b", "reference": "a", "fewest": 3.0, "task": "quiz",
        "arm": "a", "share": 0.8, "even": 0.3,
    }  # fmt: skip
    for code in set(statistics_remarks.CODES) - quiet:
        given = {**values, "seeds": {"a": 3, "b": 5}} if code == "unequal-seeds" else values
        found = sentence(Remark(code, given), comparison.study)
        assert found is not None
        for language in STRINGS:
            text = plain(found, language)
            assert "{" not in text
            assert code not in text
    other = sentence(Remark("brand-new", {}), comparison.study)
    assert other is not None
    assert plain(other, "en") == "Remark of the statistics: brand-new."


def test_the_page_has_every_section_and_three_seeds_are_warned_of(comparison: Comparison) -> None:
    text = comparison.page.read_text(encoding="utf-8")
    sections = re.findall(r'<section id="(\w+)">', text)
    assert sections == [
        "ranking", "differences", "curves", "cost", "memory", "sensitivity", "subspace", "items", "runs", "provenance",
        "files",
    ]  # fmt: skip
    page = Page(text)
    assert "3 seeds: how much seeds differ is itself a guess" in page.text
    assert "3 个随机种子" in page.text
    assert "subspace bench matrix.yaml --out outputs/forged" in page.text
    assert "torch 2.13.0+cpu" in page.text
    assert text.count('class="band ') == 2 * 2 * len(ARMS) + 2 * 3  # of two tasks: losses; three figures of one


def test_against_a_reference_the_page_shows_differences_and_criteria(tmp_path: Path) -> None:
    made = compare(
        [forge_bench(tmp_path / "bench", arms=ARMS, tasks=("word-problems",), seeds=(0, 1, 2), items=60)],
        tmp_path / "out",
        reference="lora",
    )
    study, text = made.study, made.page.read_text(encoding="utf-8")
    assert study.verdict is not None
    assert study.verdict.family == "against the reference"
    start = text.index('<section id="differences">')
    assert text[start : text.index("</section>", start)].count('<div class="row" data-arm') == 2
    [scored] = study.scored
    task = study.verdict_on(scored)
    assert task is not None
    found = {success.arm: success for success in successes(study, scored, task)}
    assert set(found) == {"full", "galore"}
    efficiency = found["full"].gates[0]
    assert (efficiency.verdict, efficiency.literal) == ("FAIL", False)
    shown = text[text.index('<section id="gates">') :]
    for success in found.values():
        for gate in success.gates:
            assert f'<span lang="en">{gate.verdict}</span>' in shown
    literal = [
        value for success in found.values() for value in (*(gate.literal for gate in success.gates), success.literal)
    ]
    for value, words in ((True, "literally met"), (False, "literally missed")):
        assert shown.count(words) == literal.count(value)
        assert value in literal
    assert made.words()[0].endswith("lora.")
    for language, stop in (("en", "."), ("zh", "。")):
        assert all(line.endswith(stop) and not line.endswith(2 * stop) for line in made.words(language))
    assert "--reference lora" in Page(text).text


def test_criteria_in_points_are_for_shares_only(tmp_path: Path) -> None:
    made = compare(
        [forge_bench(tmp_path / "bench", arms=ARMS, seeds=(0, 1), items=20)], tmp_path / "out", reference="lora"
    )
    shares = {scored.name: made.study.measure(scored).share for scored in made.study.scored}
    assert shares == {"word-problems": True, "shakespeare": False}
    for scored in made.study.scored:
        task = made.study.verdict_on(scored)
        assert task is not None
        assert bool(successes(made.study, scored, task)) == shares[scored.name]
    text = made.page.read_text(encoding="utf-8")
    start = text.index('<section id="gates">')
    shown = text[start : text.index("</section>", start)]
    assert shown.count('<p class="task">word-problems</p>') == 1
    assert "shakespeare" not in shown
    assert len(re.findall(r"\d\.\d\d points \[", shown)) == 2 * (len(ARMS) - 1)
    bare = forge_bench(tmp_path / "losses", arms=ARMS, tasks=("shakespeare",), seeds=(0, 1), items=20)
    assert 'id="gates"' not in compare([bare], tmp_path / "out", reference="lora").page.read_text(encoding="utf-8")


@pytest.mark.parametrize("task", ["word-problems", "shakespeare"])
def test_the_best_is_called_best_whatever_its_measure(task: str, tmp_path: Path) -> None:
    several = study_of([forge_bench(tmp_path / "bench", arms=ARMS, tasks=(task,), seeds=(0, 1), items=40)])
    assert [plain(lines(several)[0][0], language) for language in ("en", "zh")] == ["Best", "最好"]
    for language, text in STRINGS.items():
        for key in ("title_bare", "line_leads", "bare_best", "score_with_interval"):
            assert not re.search("highest|lowest|最高|最低", text[key], re.IGNORECASE), (language, key)


def test_a_reference_in_the_bench_is_taken(tmp_path: Path) -> None:
    folder = forge_bench(tmp_path, arms=ARMS, tasks=("word-problems",), seeds=(0, 1), items=9, reference="full")
    assert study_of([folder]).reference == "full"
    assert study_of([folder], reference="lora").reference == "lora"


def test_links_lead_to_files_that_are_there(comparison: Comparison) -> None:
    page = Page(comparison.page.read_text(encoding="utf-8"))
    names = {str(words["href"]) for tag, words in page.tags if tag == "a"}
    beside = {path.name for path in comparison.page.parent.iterdir()} - {"index.html"}
    assert names == beside
    assert {"ranking.csv", "ranking.md", "ranking.tex", "comparisons.csv", "verdict.json", "items.csv"} < beside
    assert {"ranking.png", "pareto.png", "learning_rates.png"} < beside


def test_the_tables_hold_the_verdict(comparison: Comparison) -> None:
    out, verdict = comparison.page.parent, comparison.study.verdict
    assert verdict is not None
    ranking = read_csv(out / "ranking.csv")
    assert [(row["task"], row["arm"], float(row["mean"]), row["letters"]) for row in ranking] == [
        (task.task, rank.arm, rank.mean, rank.letters) for task in verdict.tasks for rank in task.ranking
    ]
    pairs = read_csv(out / "comparisons.csv")
    assert [(row["first"], float(row["p_adjusted"]), row["decided"]) for row in pairs] == [
        (found.first, found.p_adjusted, found.decided or "") for task in verdict.tasks for found in task.comparisons
    ]
    assert len(read_csv(out / "items.csv")) == 2 * 40 * len(ARMS)
    assert (
        json.loads((out / "verdict.json").read_text())["tasks"][0]["ranking"][0]["arm"]
        == verdict.tasks[0].ranking[0].arm
    )
    tex = (out / "ranking.tex").read_text()
    assert tex.count("\\begin{tabular}{lrrrrrr}") == 2
    assert "\\textbf{" in tex
    assert (out / "ranking.md").read_text().count("| --- |") == 2


def test_items_that_split_the_arms_are_counted(comparison: Comparison) -> None:
    scored = comparison.study.scored[0]
    assert scored.table is not None
    right = scored.table.values.mean(axis=1) > 0.5
    found = disagreement(scored)
    assert found is not None
    assert (found.right, found.wrong) == (int(right.all(axis=0).sum()), int((~right).all(axis=0).sum()))
    alone = (right & (right.sum(axis=0) == 1)).sum(axis=1)
    assert [found.alone[arm] for arm in scored.table.arms] == alone.tolist()
    spreads = scored.table.values.mean(axis=1).var(axis=0)
    assert found.splits[0].spread == pytest.approx(spreads.max())
    assert found.splits[0].prompt.startswith("Question")
    assert {answer.arm for answer in found.splits[0].answers} == set(ARMS)


def test_the_page_opens_in_the_language_that_is_asked_for(comparison: Comparison, tmp_path: Path) -> None:
    made = compare([comparison.records[0].folder], tmp_path / "out", language="zh")
    text = made.page.read_text(encoding="utf-8")
    assert '<html lang="zh-Hans">' in text
    assert re.search(r"<title[^>]*>subspace：", text)
    assert "--language zh" in Page(text).text
    assert '<html lang="en">' in comparison.page.read_text(encoding="utf-8")
